"""One group of a plan as the page's script needs it: plain lists, short numbers.

Shapes: ``U`` units of a group, ``K`` kept units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

from coprune.plan import GroupDecision
from coprune.report import redundancy as took_over


def stand_ins(group: GroupDecision) -> list[int | None]:
    """Which kept unit speaks for every unit, ``[U]``.

    A kept unit speaks for itself. For a removed one it is, of the kept units in its cluster, the
    medoid, else the nearest in ``position``, else the first; None when its cluster kept nobody or
    nothing was clustered.
    """
    if not group.clusters:
        return [unit if unit in set(group.kept) else None for unit in range(group.size)]
    kept = set(group.kept)
    medoids = set(group.medoids)
    speakers: dict[int, list[int]] = {}
    for unit in group.kept:
        speakers.setdefault(group.clusters[unit], []).append(unit)
    result: list[int | None] = []
    for unit in range(group.size):
        candidates = speakers.get(group.clusters[unit], [])
        if unit in kept:
            result.append(unit)
        elif not candidates:
            result.append(None)
        else:
            central = [c for c in candidates if c in medoids]
            result.append(_nearest(group, unit, central or candidates))
    return result


def _nearest(group: GroupDecision, unit: int, candidates: list[int]) -> int:
    if len(candidates) == 1 or not group.position:
        return candidates[0]
    x, y = group.position[unit]
    return min(candidates, key=lambda c: (group.position[c][0] - x) ** 2 + (group.position[c][1] - y) ** 2)


def short(number: float) -> float:
    """Five significant digits: enough for a chart, a third of the file."""
    return float(f"{number:.5g}")


def finite(numbers: Iterable[float]) -> bool:
    """Whether all can be drawn: JSON as Python reads it may hold NaN."""
    return all(math.isfinite(n) for n in numbers)


def view(group: GroupDecision, unit: str = "channel") -> dict[str, Any]:
    """The group for the page's script.

    Lists that do not have one finite entry a unit (a foreign plan) are left out rather than drawn wrong.

    Args:
        group: the decision.
        unit: one of what it removes, in words.
    """
    size = group.size
    clusters = group.clusters if len(group.clusters) == size else ()
    position = group.position if len(group.position) == size and finite(chain(*group.position)) else ()
    score = group.score if len(group.score) == size and finite(group.score) else ()
    whole = group.model_copy(update={"clusters": clusters, "position": position})
    took = took_over.view(group)
    return {
        "name": group.name,
        "size": size,
        "kept": list(group.kept),
        "reason": group.reason,
        # A method that removes unit after unit writes its curve downwards.
        "curve": [[k, short(value)] for k, value in sorted(group.curve) if math.isfinite(value)],
        "curve_name": group.curve_name,
        "knee": group.knee.model_dump() if group.knee else None,
        "clusters": list(clusters),
        "stand": stand_ins(whole) if clusters and not took else [],
        "took": took,
        "took_summary": took_over.about_group(group, unit),
        "position": [[short(x), short(y)] for x, y in position],
        "score": [short(s) for s in score],
        "members": [[m.layer, m.role, m.span] for m in group.members],
    }
