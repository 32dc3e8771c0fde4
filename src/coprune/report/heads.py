"""The attention heads of all layers of a plan together.

Shapes: ``L`` layers, ``H`` heads of a layer, ``A`` heads of all layers, in the order of the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from coprune.plan import GroupDecision, Plan
from coprune.report.formatting import JOINT, first_few
from coprune.report.groups import Units

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Heads:
    """The layers of heads of a plan.

    Attributes:
        groups: the layers, ``[L]``.
        places: and their places in the plan.
        joint: whether they were decided together.
        score: what a score is called.
    """

    groups: tuple[GroupDecision, ...]
    places: tuple[int, ...]
    joint: bool
    score: str

    @cached_property
    def layers(self) -> list[str]:
        """What the layers are called, ``[L]``."""
        return labels([g.name for g in self.groups])

    @cached_property
    def starts(self) -> list[int]:
        """The place of every layer's first head among all heads, ``[L]``."""
        return list(accumulate((g.size for g in self.groups[:-1]), initial=0))

    @cached_property
    def owners(self) -> list[tuple[int, int]]:
        """Layer (counted among the layers of heads) and head of every head, ``[A]``."""
        return [(layer, head) for layer, g in enumerate(self.groups) for head in range(g.size)]

    @cached_property
    def units(self) -> Units:
        """All heads as one set of units."""
        short = [n.removeprefix("layer ") if " " in n else str(i) for i, n in enumerate(self.layers)]
        return Units(
            gathered(self.groups, self.starts, joint=self.joint),
            names=[f"{self.layers[layer]}, head {head}" for layer, head in self.owners],
            labels=[f"{short[layer]}·{head}" for layer, head in self.owners],
            score=self.score if self.joint else f"share of the layer's highest {self.score}",
            ranked=self.joint,
        )

    @property
    def at(self) -> int:
        """Where on the curve over the number of heads the choice was made."""
        return len(set(self.units.decision.clusters)) or len(self.units.decision.kept)

    def why(self, place: int) -> tuple[list[tuple[str, str]], list[list[str]]]:
        """Why each head of a layer stayed or went: columns with their class, and rows, kept ones first."""
        units, layer = self.units, self.places.index(place)
        score, clusters, rows = units.decision.score, units.decision.clusters, []
        for head, unit in enumerate(range(self.starts[layer], self.starts[layer] + self.groups[layer].size)):
            stays, by = unit in units.kept, units.by[unit]
            others = [units.labels[u] for u in units.represented.get(unit, ())]
            what = f"represents {first_few(others, 24)}" if others else "represents itself alone"
            if not stays:
                what = "" if by is None else f"{units.names[by]} represents it"
            row = [str(head), "stays" if stays else "removed"]
            row += [f"{score[unit]:.4g}", str(units.ranks[unit])] if score else []
            rows.append(row + ([str(clusters[unit]), what] if clusters else []))
        columns = [("Head", ""), ("outcome", "")]
        columns += [(self.score, "number"), (f"rank of {units.decision.size}", "number")] if score else []
        columns += [("cluster", "number"), ("why", "long gap")] if clusters else []
        return columns, sorted(rows, key=lambda row: row[1] == "removed")


def of_plan(plan: Plan) -> Heads | None:
    """The heads of a :func:`coprune.report.formatting.completed` plan; None for one without any."""
    places = tuple(i for i, g in enumerate(plan.groups) if g.kind == "heads")
    groups = tuple(plan.groups[i] for i in places)
    return Heads(groups, places, plan.joint, JOINT.get(plan.method, "score")) if groups else None


def alone(group: GroupDecision) -> GroupDecision:
    """A layer of a joint choice without what belongs to all layers, which is shown once, elsewhere."""
    gone = {"curve": (), "knee": None, "clusters": (), "medoids": (), "position": (), "score": ()}
    return group.model_copy(update=gone)


def gathered(groups: Sequence[GroupDecision], starts: Sequence[int], *, joint: bool) -> GroupDecision:
    """All layers as one group of ``A`` heads; lists that not every layer has are left out.

    In a joint choice clusters and scores are of all layers; else clusters are told apart by their layer, and
    a score is its share of the layer's highest. Medoids are left out: where layers got heads back the medoid
    may have gone, and which stays instead is judged by distance, not by rank.
    """
    both = list(zip(groups, starts, strict=True))

    def whole(name: str, shown: Callable[[Any, int], Iterable[Any]] = lambda own, _: own) -> tuple[Any, ...]:
        parts = [getattr(g, name) for g in groups]
        return tuple(chain(*map(shown, parts, starts))) if all(parts) else ()

    more: dict[str, Any] = {"clusters": whole("clusters"), "score": whole("score")}
    if not joint:
        more["clusters"] = whole("clusters", lambda own, start: [start + cluster for cluster in own])
        more["score"] = whole("score", lambda own, _: [score / (max(own) or 1) for score in own])
        more |= {"curve": (), "knee": None}
    more["predicted"] = tuple(
        e.model_copy(update={"unit": start + e.unit, "by": tuple((start + u, part) for u, part in e.by)})
        for g, start in both
        for e in g.predicted
    )
    kept = tuple(start + u for g, start in both for u in g.kept)
    more |= {"size": sum(g.size for g in groups), "kept": kept, "medoids": (), "position": whole("position")}
    return groups[0].model_copy(update=more)


def labels(names: list[str]) -> list[str]:
    """Short names of layers: their numbers where these tell them apart, else the names.

    Example:
        >>> labels(["encoder.layer.0.attention.self", "encoder.layer.1.attention.self"])
        ['layer 0', 'layer 1']
    """
    words, alone = [name.split(".") for name in names], len(names) == 1
    columns = list(enumerate(zip(*words, strict=False)))
    told = [at for at, own in columns if all(map(str.isdigit, own)) and (alone or len(set(own)) > 1)]
    rest = {tuple(word for at, word in enumerate(own) if at not in told) for own in words}
    if not told or len(rest) > 1:
        return names
    return [f"layer {'.'.join(own[at] for at in told)}" for own in words]


def charts(heads: Heads) -> dict[str, go.Figure]:
    """The figures of all heads: their map, and of a joint choice the plane, the curve and the scores."""
    from coprune.report import figures

    group, found = heads.units.decision, {"map": _map(heads)}
    if heads.joint and group.position:
        found["plane"] = figures.plane(heads.units)
    if group.curve:
        found["curve"] = figures.curve(group, axis="number of heads", at=heads.at)
    if heads.joint and group.score:
        found["score"] = figures.scores(heads.units)
    return found


def _map(heads: Heads) -> go.Figure:
    """A row a layer, a square a head: large ones stay, small ones went; its colour tells its score."""
    from coprune.report.theme import BASE, KEPT, PALE, figure, named_rows, points

    units, score, traces = heads.units, heads.units.decision.score, []
    for stays, size, color in ((True, 17, KEPT), (False, 7, BASE)):
        some = [u for u in range(units.decision.size) if (u in units.kept) == stays]
        layers, columns = ([heads.owners[u][part] for u in some] for part in (0, 1))
        rows, about = [heads.layers[layer] for layer in layers], [units.about[u] for u in some]
        more = {"symbol": "square", "size": size, "customdata": [heads.places[layer] for layer in layers]}
        traces.append(points(columns, rows, about, [score[u] for u in some] if score else color, **more))
        traces[-1]["marker"] |= {"coloraxis": "coloraxis"} if score else {}
    most = max(g.size for g in heads.groups)
    bar = {"orientation": "h", "len": 0.6, "x": 0, "xanchor": "left", "y": 0, "yanchor": "top", "ypad": 46}
    title = {"text": units.score, "side": "top", "font": {"size": 12}}
    return figure(
        traces,
        height=26 * len(heads.groups) + (134 if score else 66),
        xaxis={"range": [-0.5, most - 0.5], "title": {"text": "head"}, "showgrid": False, "tickformat": "d"},
        coloraxis={"colorscale": [[0, PALE], [1, KEPT]], "colorbar": {**bar, "title": title}},
        margin={"t": 12, "b": 122 if score else 54, "r": 64},
        **named_rows(heads.layers, [f" {len(g.kept)} of {g.size}" for g in heads.groups]),
    )
