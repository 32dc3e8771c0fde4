"""The units of one group, or of all that were decided together: what represents which, and hover texts.

Shapes: ``U`` units, ``K`` kept ones.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, partial
from html import escape

from coprune.plan import GroupDecision
from coprune.report.formatting import counted, first_few
from coprune.report.predictions import predictors, shown


def fitted(group: GroupDecision) -> GroupDecision:
    """The group as it is shown: the curve in order of k, without lists that lack entries (a foreign plan)."""
    odd = {n: () for n in ("clusters", "position", "score") if len(getattr(group, n)) != group.size}
    return group.model_copy(update={**odd, "curve": tuple(sorted(group.curve)), "predicted": shown(group)})


def representatives(group: GroupDecision) -> list[int | None]:
    """Which kept unit represents every unit, ``[U]``.

    A kept unit represents itself. A removed one is represented by the kept one that predicts most of it;
    where nothing was predicted, of the kept units in its cluster by the medoid, else the nearest in
    ``position``, else the first; None when its cluster kept none or nothing was clustered.
    """
    found: list[int | None] = [None] * group.size
    mates: dict[int, list[int]] = {}
    for unit in group.kept if group.clusters else ():
        mates.setdefault(group.clusters[unit], []).append(unit)
    medoids = set(group.medoids)
    central = {c: [u for u in units if u in medoids] or units for c, units in mates.items()}
    for unit, cluster in enumerate(() if group.predicted else group.clusters):
        found[unit] = min(central.get(cluster, ()), key=partial(_distance, group, unit), default=None)
    for entry in group.predicted:
        found[entry.unit] = entry.by[0][0] if entry.by else None
    for unit in group.kept:
        found[unit] = unit
    return found


def _distance(group: GroupDecision, one: int, other: int) -> float:
    return math.dist(group.position[one], group.position[other]) if group.position else 0.0


@dataclass(frozen=True)
class Units:
    """Units that were decided together: those of a group, or the heads of all layers.

    Attributes:
        decision: what became of them.
        names: of each in full, ``[U]``: ``channel 3`` or ``layer 1, head 7``.
        labels: and short: ``3`` or ``1·7``.
        score: what a score is called.
        ranked: whether scores are of all of them, so that ranks say something.
    """

    decision: GroupDecision
    names: list[str]
    labels: list[str]
    score: str = "score"
    ranked: bool = True

    @cached_property
    def kept(self) -> frozenset[int]:
        """Those that stay."""
        return frozenset(self.decision.kept)

    @cached_property
    def by(self) -> list[int | None]:
        """What represents each, see :func:`representatives`."""
        return representatives(self.decision)

    @cached_property
    def represented(self) -> dict[int, list[int]]:
        """Kept unit → the removed ones that it represents."""
        found: dict[int, list[int]] = {unit: [] for unit in self.decision.kept}
        for unit, by in enumerate(self.by):
            if by is not None and by != unit:
                found[by].append(unit)
        return found

    @cached_property
    def ranking(self) -> list[int]:
        """From the highest score to the lowest; of equals the first comes first."""
        score = self.decision.score
        return sorted(range(len(score)), key=lambda u: -score[u])

    @cached_property
    def ranks(self) -> dict[int, int]:
        """Unit → its place in the ranking, from 1."""
        return {unit: place for place, unit in enumerate(self.ranking, 1)}

    @cached_property
    def about(self) -> list[str]:
        """The hover text of each unit, ``[U]``, as Plotly's HTML."""
        group, mates = self.decision, Counter(self.decision.clusters)
        predicted = {e.unit: escape(predictors(e, self.labels)) for e in group.predicted}
        found = []
        for unit, name in enumerate(self.names):
            lines = [f"<b>{escape(name)}</b> ({'kept' if unit in self.kept else 'removed'})"]
            if group.score:
                rank = f", rank {self.ranks[unit]} of {group.size}" if self.ranked else ""
                lines.append(f"{self.score} {group.score[unit]:.4g}{rank}")
            if group.clusters:
                others = mates[group.clusters[unit]] - 1
                lines.append(f"cluster {group.clusters[unit]}, with {counted(others, 'other')}")
            by = self.by[unit]
            if unit in predicted:
                lines.append(predicted[unit])
            elif by is not None and by != unit:
                lines.append(f"represented by {escape(self.names[by])}")
            elif not predicted and self.represented.get(unit):
                lines.append(f"represents {first_few([self.labels[u] for u in self.represented[unit]], 8)}")
            found.append("<br>".join(lines))
        return found


def of_group(group: GroupDecision, unit: str) -> Units:
    """The units of one group."""
    labels = [str(u) for u in range(group.size)]
    return Units(group, [f"{unit} {label}" for label in labels], labels)
