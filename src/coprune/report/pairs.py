"""Removed heads beside the kept ones that represent them: what both attend to.

The mean attention maps are what the run's own profile holds (:mod:`coprune.methods.cahp.signatures`); a run
whose method did not look at maps has none, and its page no pairs.

Shapes: ``H`` heads of a layer, ``C`` classes, ``B`` cells a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from coprune.errors import UserError
from coprune.files import read_json
from coprune.plan import Plan
from coprune.report.groups import Units
from coprune.report.heads import Heads

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN = 4
"""Pairs on the page."""

FINEST = 48
"""Cells a side that are drawn; finer maps are averaged in blocks."""

_FLAT = 1e-12  # standard deviation up to which a map has no pattern
_BRIGHTEST = 99.5  # percentile: a few cells ([CLS], [SEP]) would leave nothing to see of the rest

Maps = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A removed head and the kept one that represents it.

    Attributes:
        removed, kept: their places among all heads.
        maps: a figure of each.
        correlation: of the two maps, None when one of them is flat.
    """

    removed: int
    kept: int
    maps: tuple[go.Figure, go.Figure]
    correlation: float | None


@dataclass(frozen=True)
class Pairs:
    """The pairs to show, the most redundant first.

    Attributes:
        typical: median correlation of the maps of any two heads, None without one.
    """

    shown: list[Pair]
    typical: float | None


def of_run(heads: Heads, plan: Plan, run: Path) -> Pairs | None:
    """The pairs of a run, whose maps are in ``run/profile``; None without any."""
    chosen = pick(heads.units)
    maps = mean_maps(heads, plan, run / "profile") if chosen else {}
    shown = [_pair(r, k, np.stack([maps[r], maps[k]])) for r, k in chosen if r in maps and k in maps]
    return Pairs(shown, _correlation(np.stack(list(maps.values())))) if shown else None


def pick(units: Units) -> list[tuple[int, int]]:
    """Pairs (removed, kept): the nearest in the plane, or those with the largest part predicted.

    A kept head stands in one pair only, so that the pairs are not all of one cluster.
    """
    position = units.decision.position
    parts = {e.unit: e.by[0][1] for e in units.decision.predicted if e.by}
    ranked = []
    for removed, kept in enumerate(units.by):
        if kept is not None and kept != removed and (removed in parts or position):
            near = -parts[removed] if removed in parts else math.dist(position[removed], position[kept])
            ranked.append((near, removed, kept))
    found: dict[int, int] = {}
    for _, removed, kept in sorted(ranked):
        found.setdefault(kept, removed)
    return [(removed, kept) for kept, removed in list(found.items())[:SHOWN]]


def _correlation(maps: Maps) -> float | None:
    """Median correlation of two different heads' maps, ``[H, B, B]``; None where all but one are flat."""
    rows = maps.reshape(len(maps), -1)
    rows = rows[rows.std(axis=1) > _FLAT]
    if len(rows) < 2:
        return None
    return float(np.median(np.corrcoef(rows)[np.triu_indices(len(rows), 1)]))


def mean_maps(heads: Heads, plan: Plan, profile: Path) -> dict[int, Maps]:
    """Mean attention maps over all samples of all classes, as the run's profile holds them.

    Returns:
        Head, counted among all heads → ``[B, B]``; nothing for layers without maps, and nothing at all when
        the statistics are missing, cannot be read, or are of another model or other samples.
    """
    found: dict[int, Maps] = {}
    try:
        index = read_json(profile / "profile.json", what="profile")
        if (index.get("model"), index.get("data")) != (plan.model, plan.data.get("statistics")):
            return {}
        files = sorted(profile.glob("head_signatures-grid*.safetensors"))
        own = profile / f"head_signatures-grid{plan.settings.get('grid')}.safetensors"
        with safe_open(own if own in files else files[0], framework="numpy") as tensors:
            for group, start in zip(heads.groups, heads.starts, strict=True):
                parts = [f"{group.name}/{part}" for part in ("count", "mean")]
                if set(tensors.keys()).issuperset(parts):
                    layer = _averaged(*map(tensors.get_tensor, parts), size=group.size)
                    found.update(enumerate(layer, start))
    except (OSError, SafetensorError, UserError, AttributeError, IndexError, ValueError):
        return {}
    return found


def _averaged(count: Maps, mean: Maps, *, size: int) -> Maps:
    """Mean over classes, each as heavy as it has samples.

    Args:
        count: ``[C]``.
        mean: ``[C, H, B²]``.
        size: ``H``.

    Returns:
        ``[H, B', B']``, at most :data:`FINEST` cells a side.

    Raises:
        ValueError: shapes or figures are foreign.
    """
    side, seen = math.isqrt(mean.shape[-1]), count > 0
    maps = np.einsum("c,chg->hg", count[seen], mean[seen]).reshape(size, side, side)
    if not np.isfinite(maps).all():
        raise ValueError("no finite maps")
    return _coarser(maps / max(count.sum(), 1))


def _coarser(maps: Maps) -> Maps:
    """At most :data:`FINEST` cells a side; ``[H, B, B]`` → ``[H, B', B']``."""
    side, cells = maps.shape[-1], min(maps.shape[-1], FINEST)
    edges = np.arange(cells) * side // cells
    width = np.diff(edges, append=side)
    summed = np.add.reduceat(np.add.reduceat(maps, edges, axis=1), edges, axis=2)
    return summed / np.outer(width, width)


def _pair(removed: int, kept: int, both: Maps) -> Pair:
    """The two maps, ``[2, B, B]``, as figures in per cent of the strongest attention of both."""
    top = max(float(np.percentile(both, _BRIGHTEST)), 1e-30)
    one, other = map(_drawn, np.rint(100 * np.clip(both / top, 0, 1)).astype(np.uint8))
    return Pair(removed, kept, (one, other), _correlation(both))


def _drawn(level: NDArray[np.uint8]) -> go.Figure:
    """One map: down the token that attends, across the token it attends to; ``[B, B]``."""
    from coprune.report.theme import figure

    hover = "from cell %{y} to cell %{x}: %{z} % of the strongest<extra></extra>"
    trace = {"type": "heatmap", "z": level, "coloraxis": "coloraxis", "hovertemplate": hover}
    bare = {"visible": False, "constrain": "domain"}
    layout: dict[str, Any] = {
        "coloraxis": {"cmin": 0, "cmax": 100, "showscale": False},
        "margin": dict.fromkeys("lrtb", 0),
    }
    down = {**bare, "autorange": "reversed", "scaleanchor": "x"}
    return figure([trace], height=260, xaxis=bare, yaxis=down, **layout)
