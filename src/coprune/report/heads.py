"""The attention heads of all layers of a plan, as the page's script draws them.

Shapes: ``L`` layers, ``H`` heads of a layer, ``A`` heads of all layers, in the order of the layers.
"""

from __future__ import annotations

from itertools import accumulate, chain
from typing import Any

from coprune.plan import GroupDecision, Plan
from coprune.report import formatting as words
from coprune.report import redundancy as took_over
from coprune.report.groups import finite, short, stand_ins


def layers_of(plan: Plan) -> list[int]:
    """Which groups of a plan are layers of heads: their places in ``plan.groups``."""
    if not any(g.kind for g in plan.groups) and words.units(plan) == "heads":
        return list(range(len(plan.groups)))
    return [i for i, g in enumerate(plan.groups) if g.kind == "heads"]


def view(plan: Plan) -> dict[str, Any] | None:
    """The heads for the page's script; None for a plan without any.

    Returns:
        ``joint``: whether layers were decided together; ``only``: whether nothing but heads was;
        ``layers``: one entry a layer, see :func:`_layer`; ``score``: what a score is called, empty
        without one; ``curve``: of all heads together, None without one; ``plane``: whether every
        head has a position in one plane.
    """
    places = layers_of(plan)
    if not places:
        return None
    groups = [plan.groups[i] for i in places]
    joint = words.joint(plan)
    by = partners(groups, joint=joint)
    names = labels([g.name for g in groups])
    together = gathered(groups) if joint else None
    scored = all(len(g.score) == g.size and finite(g.score) for g in groups)
    return {
        "joint": joint,
        "only": len(places) == len(plan.groups),
        "layers": [
            _layer(group, place, name, partner, scored=scored)
            for group, place, name, partner in zip(groups, places, names, by, strict=True)
        ],
        "score": words.score(plan.method) if scored else "",
        "curve": _curve(together) if together and together.curve else None,
        "plane": bool(together and together.position),
    }


def alone(group: GroupDecision) -> GroupDecision:
    """A layer of a joint choice without what belongs to all layers, which is shown once, elsewhere."""
    gone = {"curve": (), "knee": None, "clusters": (), "medoids": (), "position": (), "score": ()}
    return group.model_copy(update=gone)


def partners(groups: list[GroupDecision], *, joint: bool) -> list[list[tuple[int, int] | None]]:
    """Which kept head, as (layer, head), stands for every removed one; ``[L][H]``, None for the others.

    In clusters it is the kept head of the same cluster, the nearest where layers got heads back; else
    the foremost of those that took over. None also where the plan names nobody.
    """
    if joint and (merged := gathered(groups)).clusters:
        owner = [(layer, head) for layer, g in enumerate(groups) for head in range(g.size)]
        # The medoid may have gone, and who stays instead is judged by distance, not by rank.
        flat = stand_ins(merged.model_copy(update={"medoids": ()}))
        found = [None if s is None or s == a else owner[s] for a, s in enumerate(flat)]
        starts = _starts(groups)
        return [found[s : s + g.size] for s, g in zip(starts, groups, strict=True)]
    result: list[list[tuple[int, int] | None]] = []
    for layer, group in enumerate(groups):
        row: list[tuple[int, int] | None] = [None] * group.size
        for entry in took_over.recorded(group):
            if entry.by:
                row[entry.unit] = (layer, entry.by[0][0])
        result.append(row)
    return result


def gathered(groups: list[GroupDecision]) -> GroupDecision:
    """All layers of a joint choice as one group of ``A`` heads; lists that do not fit are left out."""
    starts = _starts(groups)
    size = sum(g.size for g in groups)

    def whole(name: str) -> tuple[Any, ...]:
        parts = [getattr(g, name) for g in groups]
        fits = all(len(p) == g.size for p, g in zip(parts, groups, strict=True))
        return tuple(chain(*parts)) if fits else ()

    def moved(name: str) -> tuple[int, ...]:
        return tuple(s + u for s, g in zip(starts, groups, strict=True) for u in getattr(g, name))

    position = whole("position")
    return groups[0].model_copy(
        update={
            "size": size,
            "kept": moved("kept"),
            "clusters": whole("clusters"),
            "medoids": moved("medoids"),
            "position": position if finite(chain(*position)) else (),
            "score": whole("score"),
        }
    )


def labels(names: list[str]) -> list[str]:
    """Short names of layers: their numbers where these tell them apart, else the names.

    Example:
        >>> labels(["encoder.layer.0.attention.self", "encoder.layer.1.attention.self"])
        ['layer 0', 'layer 1']
    """
    parts = [name.split(".") for name in names]
    front = 0 if len(names) == 1 else _shared(parts)
    back = 0 if len(names) == 1 else _shared([p[:front:-1] for p in parts])
    numbers = [".".join(w for w in p[front : len(p) - back] if w.isdigit()) for p in parts]
    # Numbers may be all that differs only if nothing else does: encoder and decoder both have a 0.
    words_left = {tuple(w for w in p[front : len(p) - back] if not w.isdigit()) for p in parts}
    if all(numbers) and len(set(numbers)) == len(names) and len(words_left) == 1:
        return [f"layer {n}" for n in numbers]
    return list(names)


def _shared(parts: list[list[str]]) -> int:
    """How many leading words all have in common."""
    same = [len(set(column)) == 1 for column in zip(*parts, strict=False)]
    return next((i for i, yes in enumerate(same) if not yes), len(same))


def _starts(groups: list[GroupDecision]) -> list[int]:
    return list(accumulate((g.size for g in groups[:-1]), initial=0))


def _layer(
    group: GroupDecision, place: int, name: str, by: list[tuple[int, int] | None], *, scored: bool
) -> dict[str, Any]:
    """One layer: lists have an entry a head, ``[H]``.

    ``place``: its number among the groups; ``stays``: 1 or 0; ``by``: who stands for it; ``explained``:
    share of what it said that the kept ones say, in per cent, None where the plan does not tell.
    """
    kept = set(group.kept)
    explained = {e.unit: words.share(e.explained) for e in took_over.recorded(group)}
    position = group.position if len(group.position) == group.size and finite(chain(*group.position)) else ()
    return {
        "name": group.name,
        "label": name,
        "place": place,
        "stays": [int(u in kept) for u in range(group.size)],
        "score": [short(s) for s in group.score] if scored else [],
        "cluster": list(group.clusters) if len(group.clusters) == group.size else [],
        "position": [[short(x), short(y)] for x, y in position],
        "by": by,
        "explained": [explained.get(u) for u in range(group.size)] if explained else [],
    }


def _curve(together: GroupDecision) -> dict[str, Any]:
    """The curve over the number of heads; ``at`` is where on it the choice was made."""
    clusters = len(set(together.clusters))
    return {
        "curve": [[k, short(v)] for k, v in sorted(together.curve) if finite([v])],
        "curve_name": together.curve_name,
        "knee": together.knee.model_dump() if together.knee else None,
        "size": together.size,
        "at": clusters or len(together.kept),
        "kept": len(together.kept),
    }
