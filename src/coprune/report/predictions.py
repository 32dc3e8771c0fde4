"""Removed units as the kept ones predict them: what a plan recorded, in sentences, a figure and tables.

Shares are R²: 0.94 of a unit's variance is a linear mix of the kept units.

Groups are :func:`coprune.report.groups.fitted`: their predictions are those that can be shown, best first.

Shapes: ``K`` kept units, ``R`` removed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from coprune.plan import GroupDecision, Prediction
from coprune.report.formatting import NB, enumeration, first_few, one, share

if TYPE_CHECKING:
    import plotly.graph_objects as go

WELL = 0.9
"""From this share on a removed unit counts as predicted by the others."""

_SMALLEST = 0.01
_MOST = 6


def shown(group: GroupDecision) -> tuple[Prediction, ...]:
    """The group's predictions that can be shown, the best first.

    A plan may name units that do not exist, that stayed or that it named before: such entries are left out,
    and so are parts of units that went, below 1 %, or beyond the six largest of a unit; all of them still
    count in ``explained``.
    """
    kept = set(group.kept)
    found: dict[int, Prediction] = {}
    for entry in group.predicted:
        if entry.unit < group.size and entry.unit not in kept:
            parts = {u: part for u, part in entry.by if u in kept and _SMALLEST <= part <= 1}
            by = sorted(parts.items(), key=lambda p: (-p[1], p[0]))[:_MOST]
            found.setdefault(entry.unit, entry.model_copy(update={"by": tuple(by)}))
    return tuple(sorted(found.values(), key=lambda e: (-e.explained, e.unit)))


def well_predicted(group: GroupDecision) -> int:
    """How many removed units the kept ones predict to at least 90 %."""
    return sum(e.explained >= WELL for e in group.predicted)


def predictors(entry: Prediction, labels: Sequence[str] | None = None) -> str:
    """``3 and 9 predict 94 % of it``; when more than four are needed, the three largest.

    Args:
        entry: the prediction of one removed unit.
        labels: what units are called; their numbers by default.
    """
    if entry.explained < _SMALLEST:
        return "no mix of the kept ones predicts it"
    by = [(labels[unit] if labels else str(unit), part) for unit, part in entry.by]
    sums = accumulate(part for _, part in by[:4])
    enough = next((n for n, found in enumerate(sums, 1) if found >= entry.explained - 0.01), 0)
    much = f"{share(entry.explained)} of it"
    if enough:
        return f"{enumeration([unit for unit, _ in by[:enough]])} predict{'s' * (enough == 1)} {much}"
    most = enumeration(_parts(by[:3]))
    return f"the kept ones together predict {much}" + (f", mostly {most}" if most else "")


def summary(groups: Sequence[GroupDecision], units: str) -> str:
    """One sentence over one group or all of them; empty when the plan has no predictions.

    Args:
        groups: the decisions.
        units: what they remove, ``channels``.

    Example:
        ``The kept channels predict at least 90 % of 5 of the 8 removed ones; least predicted: channel 5 (41
        %), 12 (58 %) and 3 (61 %).``
    """
    every = [(g.name, e) for g in groups for e in g.predicted]
    known = sorted(every, key=lambda entry: (entry[1].explained, -entry[1].unit))
    if not known:
        return ""
    gone = sum(g.size - len(g.kept) for g in groups if g.predicted)
    if gone == 1:
        return f"The kept {units} predict {share(known[0][1].explained)} of the removed one."
    bound, well = f"90{NB}%", sum(e.explained >= WELL for _, e in known)
    which = f"each of the {gone:,}" if well == gone else f"{well:,} of the {gone:,}"
    text = f"The kept {units} predict at least {bound} of {which} removed ones"
    if not well:
        text = f"None of the {gone:,} removed {units} is predicted to {bound} by the kept ones"
    several = len(groups) > 1
    worst = known[:1] if several else [k for k in known if k[1].explained < WELL][:3] or known[:1]
    named = [f"{e.unit}{f' of {name}' * several} ({share(e.explained)})" for name, e in worst]
    text += f"; least predicted: {one(units)} {enumeration(named)}."
    unknown = gone - len(known)
    return text + (f" The plan says nothing of {unknown:,} of them." if unknown else "")


def by_kept(group: GroupDecision) -> dict[int, list[tuple[int, float]]]:
    """Kept unit → removed units and the part it predicts, both the largest first."""
    found: dict[int, list[tuple[int, float]]] = {unit: [] for unit in group.kept}
    for entry in group.predicted:
        for unit, part in entry.by:
            found[unit].append((entry.unit, part))
    found = {unit: sorted(parts, key=lambda p: (-p[1], p[0])) for unit, parts in found.items()}
    return dict(sorted(found.items(), key=lambda item: (-sum(part for _, part in item[1]), item[0])))


def _parts(parts: Sequence[tuple[object, float]]) -> list[str]:
    return [f"{unit}{NB}({share(part)})" for unit, part in parts]


def kept_rows(group: GroupDecision) -> list[list[str]]:
    """A row a kept unit: which removed ones it predicts, how many, and how much in all."""
    rows = []
    for unit, parts in by_kept(group).items():
        some, total = first_few(_parts(parts), 10) or "none of them", sum(part for _, part in parts)
        rows.append([str(unit), some, str(len(parts)), f"{total:.2f}"])
    return rows


def removed_rows(group: GroupDecision) -> list[list[str]]:
    """A row a removed unit, the least predicted first: its share, and by which kept ones."""
    none = f"no unit predicts 1{NB}% of it alone"
    return [
        [str(e.unit), share(e.explained), ", ".join(_parts(e.by)) or none] for e in reversed(group.predicted)
    ]


def matrix(group: GroupDecision, units: str) -> go.Figure:
    """Which units predict which: a bar a removed unit and below it a cell for every kept one, ``[K, R]``."""
    from coprune.report.theme import ACCENT, KEPT, PANEL, REMOVED, SOFT, bars, figure, rule

    entries, rows = group.predicted, [str(unit) for unit in by_kept(group)]
    columns, explained = [str(e.unit) for e in entries], [round(100 * e.explained, 1) for e in entries]
    # Every row and column is named once, so that cells have one size though most of them are empty.
    empty = [(c, rows[0], None) for c in columns] + [(columns[0], r, None) for r in rows]
    cells = [(str(e.unit), str(u), round(100 * part, 1)) for e in entries for u, part in e.by]
    x, y, z = zip(*empty, *cells, strict=True)
    thin, high = int(max(len(rows), len(columns)) <= 64), min(560, max(120, 24 * len(rows)))
    inner, percent = high + 124, f"{NB}%"
    heat = {"type": "heatmap", "x": x, "y": y, "z": z, "xgap": thin, "ygap": thin, "coloraxis": "coloraxis"}
    heat["hovertemplate"] = f"<b>%{{y}} predicts %{{z}}{percent} of %{{x}}</b><extra></extra>"
    strong = [KEPT if e.explained >= WELL else SOFT for e in entries]
    about = [f"{one(units)} {e.unit}: {predictors(e)}" for e in entries]
    found = bars(columns, explained, about, strong, yaxis="y2")
    lost = bars(columns, [round(100 - e, 1) for e in explained], [], REMOVED, yaxis="y2")
    axis = {"type": "category", "showgrid": False, "tickangle": 0}
    x_axis = {**axis, "categoryarray": columns, "range": [-0.5, len(columns) - 0.5], "anchor": "y"}
    y_axis = {**axis, "categoryarray": rows, "range": [len(rows) - 0.5, -0.5], "domain": [0, high / inner]}
    y_axis2 = {"range": [0, 100], "domain": [1 - 110 / inner, 1], "ticksuffix": percent, "dtick": 50}
    colors = {"cmin": 0, "cmax": 100, "colorbar": {"ticksuffix": percent, "len": 0.5, "y": 0.3}}
    layout = {"barmode": "stack", "bargap": 0.12 * thin, "margin": {"t": 12, "r": 4}, "plot_bgcolor": PANEL}
    return figure(
        [{**heat, "hoverongaps": False}, found, lost],
        height=inner + 66,
        rules=[rule(100 * WELL, "", ACCENT, axis="y2", dash="dot")],
        xaxis={**x_axis, "title": {"text": f"removed {units}"}},
        yaxis={**y_axis, "title": {"text": f"kept {units}"}},
        yaxis2=y_axis2,
        coloraxis=colors,
        **layout,
    )
