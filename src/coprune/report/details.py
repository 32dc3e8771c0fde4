"""One group as the page shows it when it is chosen: its charts and its tables."""

from __future__ import annotations

from typing import Any

from coprune.plan import GroupDecision
from coprune.report import predictions
from coprune.report.formatting import one, ranges, share
from coprune.report.groups import Units, of_group
from coprune.report.heads import Heads, alone

Column = tuple[str, str]
"""A column of a table: its name and its style class."""


def details(group: GroupDecision, units: str, *, place: int, heads: Heads | None) -> dict[str, Any]:
    """What is shown of a group.

    Args:
        group: the decision, its lists fitted.
        units: what it removes.
        place: among the plan's groups.
        heads: of the plan, where it has any.

    Returns:
        ``group``: the decision; without what belongs to all layers of a joint choice. ``summary``: what the
        kept units predict, in a sentence; may be empty. ``charts``: figure by name: ``predictions``,
        ``curve``, ``plane``, ``scores``. ``shares``: removed unit → how much of it is predicted, in words, in
        order. ``removed``: the predictions as rows, the least predicted first. ``why``: columns and rows: why
        each unit stayed.
    """
    from coprune.report import figures

    of_joint_heads = heads if heads and heads.joint and place in heads.places else None
    if of_joint_heads:
        group = alone(group)
    own, charts = of_group(group, one(units)), {}
    if group.predicted:
        charts["predictions"] = predictions.matrix(group, units)
    if group.curve:
        charts["curve"] = figures.curve(group, axis="kept units k", at=len(group.kept))
    if group.position:
        charts["plane"] = figures.plane(own)
    if group.score and not group.clusters:
        charts["scores"] = figures.scores(own)
    by_unit = sorted(group.predicted, key=lambda e: e.unit)
    return {
        "group": group,
        "summary": predictions.summary([group], units),
        "charts": charts,
        "shares": {str(e.unit): share(e.explained) for e in by_unit},
        "removed": predictions.removed_rows(group),
        "why": of_joint_heads.why(place) if of_joint_heads else _why(own, one(units)),
    }


def _why(own: Units, unit: str) -> tuple[list[Column], list[list[str]]]:
    """Why each kept unit stayed: what it predicts, what it represents, or its rank."""
    group, score = own.decision, [f"{s:.4g}" for s in own.decision.score]
    first, scored = (f"Kept {unit}", ""), [("score", "number")] if own.decision.score else []
    if group.predicted:
        columns = [("predicts", "long"), ("how many", "number"), ("in all", "number")]
        return [first, *columns], predictions.kept_rows(group)
    if group.clusters:
        rows = []
        for u, some in sorted(own.represented.items(), key=lambda item: (-len(item[1]), item[0])):
            rows.append([str(u), ranges(some) or "only itself", str(len(some)), *score[u : u + 1]])
        if orphans := [u for u, by in enumerate(own.by) if by is None]:
            rows.append(["none", ranges(orphans), str(len(orphans)), *["–"] * len(scored)])
        return [first, ("represents", "long"), ("how many", "number"), *scored], rows
    if scored:
        rows = [[str(u), f"{own.ranks[u]} of {group.size}", score[u]] for u in own.ranking if u in own.kept]
        return [first, ("rank", "number"), *scored], rows
    return [(f"Kept {unit}s", "long")], [[ranges(group.kept)]]
