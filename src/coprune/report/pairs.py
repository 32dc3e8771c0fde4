"""Removed heads beside the kept ones that stand for them: what both look at.

The mean attention maps are what the run's own profile gathered (:mod:`coprune.methods.cahp.signatures`); a
run
whose method did not look at maps has none, and its page no pairs.

Shapes: ``L`` layers, ``H`` heads of a layer, ``C`` classes, ``B`` cells a side.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from coprune.errors import UserError
from coprune.files import read_json
from coprune.plan import GroupDecision, Plan
from coprune.report import formatting as words
from coprune.report import heads
from coprune.report import redundancy as took_over

SHOWN = 4
"""Pairs on the page."""

FINEST = 48
"""Cells a side that are drawn; finer maps are averaged in blocks."""

_LEVELS = 99
_FLAT = 1e-12  # standard deviation up to which a map has no pattern
_BRIGHTEST = 99.5  # percentile: a few cells ([CLS], [SEP]) would leave nothing to see of the rest

Head = tuple[int, int]
"""Layer (counted among the layers of heads) and head."""

Maps = NDArray[np.float64]


def view(plan: Plan, run: Path) -> dict[str, Any]:
    """The pairs for the page's script.

    Args:
        plan: the decision.
        run: its folder; the maps are in ``profile/``.

    Returns:
        ``shown``: the pairs, the most redundant first, none without maps: for each ``removed`` and
        ``kept`` (layer, head), both ``maps`` as whole numbers 0 … 99 on one scale, row by row, ``side``
        cells a side, and ``correlation`` of the two maps, None when one of them is flat.
        ``typical``: median correlation of the maps of any two heads, None without one.
    """
    groups = [plan.groups[i] for i in heads.layers_of(plan)]
    chosen = pick(groups, joint=words.joint(plan))
    maps = mean_maps(plan, Path(run) / "profile") if chosen else {}
    shown = [
        _drawn(removed, kept, maps[removed[0]][removed[1]], maps[kept[0]][kept[1]])
        for removed, kept in chosen
        if removed[0] in maps and kept[0] in maps
    ]
    return {"shown": shown, "typical": typical_correlation(list(maps.values())) if shown else None}


def pick(groups: list[GroupDecision], *, joint: bool, most: int = SHOWN) -> list[tuple[Head, Head]]:
    """Pairs (removed, kept): the nearest in the plane, or those with the largest part taken over.

    A kept head stands in one pair only, so that the pairs are not all of one cluster.

    Args:
        groups: the layers of heads.
        joint: whether clusters and positions are of all layers.
        most: how many pairs.
    """
    ranked: list[tuple[float, Head, Head]] = []
    for layer, row in enumerate(heads.partners(groups, joint=joint)):
        parts = {e.unit: e.by[0][1] for e in took_over.recorded(groups[layer]) if e.by}
        for head, kept in enumerate(row):
            if kept is None:
                continue
            if head in parts:
                ranked.append((-parts[head], (layer, head), kept))
            elif (distance := _apart(groups, (layer, head), kept)) is not None:
                ranked.append((distance, (layer, head), kept))
    found: dict[Head, Head] = {}
    for _, removed, kept in sorted(ranked):
        found.setdefault(kept, removed)
    return [(removed, kept) for kept, removed in list(found.items())[:most]]


def _apart(groups: list[GroupDecision], one: Head, other: Head) -> float | None:
    ends = [groups[layer].position for layer, _ in (one, other)]
    if any(len(p) != groups[layer].size for p, (layer, _) in zip(ends, (one, other), strict=True)):
        return None
    distance = math.dist(ends[0][one[1]], ends[1][other[1]])
    return distance if math.isfinite(distance) else None


def typical_correlation(layers: list[Maps]) -> float | None:
    """Median correlation of two different heads' maps; None when fewer than two are not flat.

    Args:
        layers: of each ``[H, B, B]``.
    """
    rows = np.concatenate([m.reshape(len(m), -1) for m in layers])
    rows = rows[rows.std(axis=1) > _FLAT]
    if len(rows) < 2:
        return None
    return round(float(np.median(np.corrcoef(rows)[np.triu_indices(len(rows), 1)])), 3)


def mean_maps(plan: Plan, profile: Path) -> dict[int, Maps]:
    """Mean attention maps over all samples of all classes, as the run gathered them.

    Args:
        plan: whose statistics are wanted.
        profile: the folder.

    Returns:
        Layer, counted among the layers of heads → ``[H, B, B]``; nothing for layers without maps, and
        nothing at all when the statistics are missing, cannot be read, or are of another model or other
        samples.
    """
    file = _signatures(plan, profile)
    if file is None:
        return {}
    groups = [plan.groups[i] for i in heads.layers_of(plan)]
    found: dict[int, Maps] = {}
    try:
        with safe_open(file, framework="numpy") as tensors:
            names = set(tensors.keys())
            for layer, group in enumerate(groups):
                wanted = [f"{group.name}/{part}" for part in ("count", "mean")]
                if names.issuperset(wanted):
                    made = _averaged(*(tensors.get_tensor(n) for n in wanted), size=group.size)
                    found |= {} if made is None else {layer: made}
    except (OSError, SafetensorError):
        return {}
    return found


def _signatures(plan: Plan, profile: Path) -> Path | None:
    """The file with the maps, of the plan's own grid where there are several."""
    try:
        index = read_json(profile / "profile.json", what="profile")
    except UserError:
        return None
    of = (plan.model, plan.data.get("statistics"))
    if not isinstance(index, dict) or (index.get("model"), index.get("data")) != of:
        return None
    files = sorted(profile.glob("head_signatures-grid*.safetensors"))
    own = profile / f"head_signatures-grid{plan.settings.get('grid')}.safetensors"
    return own if own in files else next(iter(files), None)


def _averaged(count: Maps, mean: Maps, *, size: int) -> Maps | None:
    """Mean over classes, each as heavy as it has samples; None when shapes or figures are foreign.

    Args:
        count: ``[C]``.
        mean: ``[C, H, B²]``.
        size: ``H``.

    Returns:
        ``[H, B, B]``.
    """
    if mean.ndim != 3 or mean.shape[:2] != (len(count), size) or not count.sum() > 0:
        return None
    side = math.isqrt(mean.shape[2])
    seen = count > 0
    maps = np.einsum("c,chg->hg", count[seen] / count.sum(), mean[seen])
    if side * side != mean.shape[2] or not np.isfinite(maps).all():
        return None
    return _coarser(maps.reshape(size, side, side))


def _coarser(maps: Maps) -> Maps:
    """At most :data:`FINEST` cells a side; ``[H, B, B]`` → ``[H, B', B']``."""
    side = maps.shape[-1]
    if side <= FINEST:
        return maps
    edges = np.arange(FINEST) * side // FINEST
    width = np.diff(edges, append=side)
    summed = np.add.reduceat(np.add.reduceat(maps, edges, axis=1), edges, axis=2)
    return summed / np.outer(width, width)


def _drawn(removed: Head, kept: Head, one: Maps, other: Maps) -> dict[str, Any]:
    both = np.stack([one, other])
    top = max(float(np.percentile(both, _BRIGHTEST)), 1e-30)
    levels = np.rint(_LEVELS * np.clip(both / top, 0, 1)).astype(int)
    flat = both.std(axis=(1, 2)).min() <= _FLAT
    return {
        "removed": list(removed),
        "kept": list(kept),
        "side": one.shape[0],
        "maps": [level.ravel().tolist() for level in levels],
        "correlation": None
        if flat
        else round(float(np.atleast_2d(np.corrcoef(both.reshape(2, -1)))[0, 1]), 3),
    }
