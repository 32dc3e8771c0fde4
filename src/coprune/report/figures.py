"""The figures of a run: steps, groups, times, and for units a curve, a plane and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from coprune.plan import GroupDecision, Plan
from coprune.report import formatting as f
from coprune.report.groups import Units
from coprune.report.metric import MetricWords
from coprune.report.predictions import well_predicted
from coprune.report.sentences import place
from coprune.report.theme import (
    ACCENT,
    BASE,
    HUES,
    INK,
    KEPT,
    MUTED,
    REMOVED,
    SHAPES,
    SOFT,
    Trace,
    bars,
    figure,
    line,
    named_rows,
    points,
    rule,
    safe,
    whiskers,
)
from coprune.result import Latency, Stage

ERROR = "reconstruction error"
"""The name of a curve of shares: of what the next layers read that is lost."""

MANY = 300
"""Units from which on marks are small, and the plane can be enlarged."""

_PERCENT = {"ticksuffix": f"{f.NB}%"}


def steps(stages: Sequence[Stage], metric: MetricWords) -> go.Figure:
    """The metric after each step, as bars."""
    text, about = [], []
    for stage in stages:
        value, seen = metric.figure(stage.value), stage.calibration
        compared = stage.name != "base" and metric.base is not None
        text.append(value + (f"<br>{metric.signed(stage.value)}" if compared else ""))
        also = "" if seen is None else f"<br>on calibration data: {metric.figure(seen)}"
        about.append(f"{f.STAGES[stage.name]}: {value}{also}")
    colors = [BASE, *[SOFT] * (len(stages) - 2), KEPT][: len(stages)]
    labels, values = [f.STAGES[s.name] for s in stages], [metric.scale * s.value for s in stages]
    trace = bars(labels, values, about, colors, text=text, textposition="outside", width=0.56)
    axis = {"range": [0, 100], "dtick": 25, **_PERCENT} if metric.unit == "%" else metric.axis(values)
    return figure([trace], height=300, yaxis=axis, xaxis={"showgrid": False, "tickfont_color": INK})


def overview(plan: Plan, *, share: bool) -> go.Figure:
    """Kept and removed units of every group, and what its knee said.

    Args:
        plan: the decision.
        share: whether bars are as long as they are shares of their group.
    """
    groups, names, about = plan.groups, [g.name for g in plan.groups], [_about(g) for g in plan.groups]
    one = [100 / g.size if share else 1.0 for g in groups]  # the length of a unit
    ends, kept = (
        [n * long for n, long in zip(counts, one, strict=True)]
        for counts in ([g.size for g in groups], [len(g.kept) for g in groups])
    )
    more: Trace = {"orientation": "h", "customdata": list(range(len(names)))}
    counts = {"text": [f" {len(g.kept):,} / {g.size:,}" for g in groups], "textposition": "outside"}
    traces = [bars(ends, names, about, REMOVED, name="removed", textfont={"color": MUTED}, **counts, **more)]
    traces.append(bars(kept, names, about, KEPT, name="kept", **more))
    if knees := [(g.knee.k * one[i], g.name, about[i], i) for i, g in enumerate(groups) if g.knee]:
        x, rows, texts, places = zip(*knees, strict=True)
        diamond = {"symbol": "diamond", "customdata": places, "name": "the knee's own choice"}
        traces.append(points(x, rows, texts, ACCENT, **diamond))
    title = "share of the group, %" if share else f.units(plan)
    x_axis = {"range": [0, 1.16 * max(ends, default=1)], "title": {"text": title}}
    layout = {**named_rows(names), "legend": {"y": 1, "traceorder": "reversed"}, "barmode": "overlay"}
    height = 92 + 26 * len(names)
    return figure(traces, height=height, xaxis=x_axis, bargap=0.3, showlegend=True, **layout)


def _about(group: GroupDecision) -> str:
    lines = [f"<b>{safe(group.name)}</b>", f"kept {len(group.kept):,} of {group.size:,}"]
    if group.knee:
        lines.append(f"knee {group.knee.k}" + (" (fallback)" if group.knee.fallback else ""))
    if known := group.predicted:
        lines.append(f"{well_predicted(group):,} of {len(known):,} removed ones predicted to 90{f.NB}%")
    return "<br>".join(lines)


def latency(entries: Sequence[Latency]) -> go.Figure:
    """Milliseconds of base and pruned network, medians with the 10th and 90th percentile."""
    several = len({(t.engine, t.device) for t in entries}) > 1
    rows = [place(t) + (f" · {t.engine} on {t.device}" if several else "") for t in entries]
    traces: list[dict[str, Any]] = []
    all_ends: list[float] = []
    for name, color, symbol in (("base", BASE, "circle"), ("pruned", KEPT, "square")):
        medians, about, spans = [getattr(t, f"{name}_ms") for t in entries], [], []
        for row, t, m in zip(rows, entries, medians, strict=True):
            low, high = getattr(t, f"{name}_spread_ms")
            all_ends.extend((low, high))
            spans.append((min(low, m), m, max(m, high)))
            words = f"{name}: {m:.4g} ms ({low:.4g} – {high:.4g})"
            about.append(f"{safe(row)}<br>{words}<br>{t.repeats} repeats")
        more = {"offsetgroup": name, "orientation": "h", "error_x": whiskers(spans, color), "name": name}
        traces.append(points(medians, rows, about, color, symbol=symbol, **more))
    wide = min(all_ends) > 0 and max(all_ends) > 8 * min(all_ends)
    scale = {"type": "log", "dtick": "D2"} if wide else {"rangemode": "tozero"}
    title = {"text": "milliseconds a batch" + (" (logarithmic)" if wide else "")}
    layout = named_rows(rows, [f"<b> {f.times(t.ratio)}</b>" for t in entries])
    layout |= {"scattermode": "group", "scattergap": 0.5, "margin": {"r": 64}, "showlegend": True}
    return figure(traces, height=110 + 54 * len(entries), xaxis={"title": title, **scale}, **layout)


def curve(group: GroupDecision, *, axis: str, at: int) -> go.Figure:
    """The curve over k that led to a choice, with its knee and with what was kept.

    Args:
        group: its curve, its knee and its size.
        axis: what k is.
        at: the k at which the choice was made: of units, or of clusters where layers were given units back.
    """
    percent = group.curve_name == ERROR
    values = {k: float(f"{value * (100 if percent else 1):.5g}") for k, value in group.curve}
    kept = f"kept: {at}" if at == len(group.kept) else f"{at} clusters, {len(group.kept)} kept"
    marks = [(at, kept, KEPT, "circle")]
    if group.knee:
        same, k = group.knee.k == at, group.knee.k
        marks = [(k, f"knee and {kept}" if same else f"knee: {k}", ACCENT, "diamond"), *marks[same:]]
    hover = f"k = %{{x}}<br>%{{y:.4g}}{f.NB + '%' if percent else ''}<extra></extra>"
    traces = [line(list(values), list(values.values()), BASE, hoverinfo=None, hovertemplate=hover)]
    rules = []
    for number, (k, text, color, symbol) in enumerate(marks):
        inwards = "right" if k > group.size / 2 else "left"
        rules.append(rule(k, text, color, axis="x", dash="dot", xanchor=inwards, yshift=16 * number))
        if k in values:
            traces.append(points([k], [values[k]], [text], color, size=13, symbol=symbol))
    x_axis = {"title": {"text": axis}, "range": [0, group.size + 0.5]}
    y_axis = {"rangemode": "tozero", **_PERCENT} if percent else {}
    return figure(traces, height=400, rules=rules, xaxis=x_axis, yaxis=y_axis, margin={"t": 44})


def plane(units: Units) -> go.Figure:
    """Units in two dimensions: near means redundant; a line leads to what represents a removed one."""
    group, many = units.decision, units.decision.size > MANY
    x, y = zip(*group.position, strict=True)
    ends = [(u, by) for u, by in enumerate(units.by) if by is not None and by != u]
    to_x, to_y = ([n for u, by in ends for n in (of[u], of[by], None)] for of in (x, y))
    traces = [line(to_x, to_y, BASE, opacity=0.55)]
    for stays, suffix, size in ((False, "-open", 6 if many else 9), (True, "", 10 if many else 15)):
        some = [u for u in range(group.size) if (u in units.kept) == stays]
        mark: Trace = {"size": size, "symbol": f"circle{suffix}"}
        color: object = KEPT if stays else BASE
        if group.clusters:
            color = [HUES[group.clusters[u] % len(HUES)] for u in some]
            mark["symbol"] = [SHAPES[group.clusters[u] // len(HUES) % len(SHAPES)] + suffix for u in some]
        if stays and len(some) <= 40:
            labels = [units.labels[u] for u in some]
            mark |= {"mode": "markers+text", "text": labels, "textposition": "top center"}
        about = [units.about[u] for u in some]
        traces.append(points([x[u] for u in some], [y[u] for u in some], about, color, **mark))
    bare = {"showline": True, "mirror": True, "showticklabels": False, "showgrid": False}
    bare["fixedrange"] = not many
    drag = "zoom" if many else False
    return figure(traces, height=400, xaxis=bare, yaxis=bare, dragmode=drag, margin={"t": 24, "b": 12})


def scores(units: Units) -> go.Figure:
    """Scores as bars, sorted."""
    traces = []
    for name, color, stays in (("kept", KEPT, True), ("removed", REMOVED, False)):
        some = [u for u in units.ranking if (u in units.kept) == stays]
        ranks, values = [units.ranks[u] for u in some], [units.decision.score[u] for u in some]
        traces.append(bars(ranks, values, [units.about[u] for u in some], color, name=name))
    x_axis = {"title": {"text": "rank"}, "showgrid": False}
    y_axis = {"title": {"text": units.score}, "rangemode": "tozero"}
    layout: dict[str, Any] = {"barmode": "overlay", "bargap": 0 if units.decision.size > 150 else 0.2}
    return figure(traces, height=320, xaxis=x_axis, yaxis=y_axis, showlegend=True, **layout)
