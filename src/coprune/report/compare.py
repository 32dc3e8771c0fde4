"""The page of a comparison: ``folder/compare.json`` → ``folder/compare.html``."""

from __future__ import annotations

import math
from collections import Counter
from itertools import groupby, product
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from coprune.comparison import BaseFigures, Comparison
from coprune.files import write_text
from coprune.report import formatting as f
from coprune.report.metric import CLASSIFICATION, MetricWords, of
from coprune.report.page import page
from coprune.report.summary import STAGES, last_measured, notes_of, stage_values, summarise, together

if TYPE_CHECKING:
    import plotly.graph_objects as go

ALL = "all"
"""The choice of recovery that shows every one."""

_LINES = 8  # they can be told apart
_DASHES = ("dot", "dash", "solid", "dashdot")  # of recoveries
_DASHES_OF_WAYS = ("solid", "longdash", "dot")


def render_compare(comparison: Comparison) -> str:
    """One self-contained HTML page about a comparison; it asks for no other file.

    Returns:
        The page.
    """
    content = comparison.model_dump(mode="json")
    summary, metric = summarise(content), metric_of(comparison)
    measured = [stage for stage in STAGES if any(r[stage] is not None for r in summary)]
    recoveries, budgets = _recoveries(content), groupby(summary, key=itemgetter("budget"))
    choices = [ALL, *recoveries] if len(recoveries) > 1 else []
    return page(
        "compare.html.j2",
        title="Comparison of pruning methods",
        headline=_headline(summary, metric),
        base=comparison.base,
        metric=metric,
        of_heads=_of_heads(content),
        stages=measured,
        recoveries=choices,
        shown=_shown(summary),
        notes=notes_of(content),
        seeds=sorted({row["seeds"] for row in summary}) or [0],
        charts={
            "/".join(filter(None, (stage, choice))): lines(comparison, stage, recovery=choice)
            for stage in measured
            for choice in choices or [""]
        },
        budgets=[_table(list(part), measured, comparison.base, metric) for _, part in budgets],
    )


def metric_of(comparison: Comparison) -> MetricWords:
    """How its metric is spoken of."""
    task = str(comparison.job.get("task") or CLASSIFICATION)
    return of(comparison.base, task=task, base=comparison.base.value)


def write_compare(folder: Path) -> Path:
    """Render a comparison's page beside its ``compare.json``.

    Returns:
        ``folder/compare.html``.

    Raises:
        UserError: ``compare.json`` is missing, truncated or foreign, or the page cannot be written.
    """
    target = Path(folder) / "compare.html"
    write_text(target, render_compare(Comparison.load(Path(folder) / "compare.json")))
    return target


def _of_heads(content: dict[str, Any]) -> bool:
    """Whether the budgets are shares of the attention heads, and every row says how many it kept."""
    return content["job"].get("budget_of") == "heads" and all(r["kept"] is not None for r in content["rows"])


def _recoveries(content: dict[str, Any]) -> list[str]:
    """Those that occur, in the order of :data:`formatting.RECOVERIES`, unknown ones last."""
    found, order = {recovery for *_, recovery in together(content["rows"])}, list(f.RECOVERIES)
    return [*(r for r in order if r in found), *sorted(found - set(order))]


def _winners(summary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first row of every budget."""
    return [next(part) for _, part in groupby(summary, key=itemgetter("budget"))]


def _shown(summary: list[dict[str, Any]]) -> str:
    """The recovery the chart starts with: all while lines can be told apart, else the one that wins most."""
    lines = {(row["method"], row["allocation"], row["recovery"]) for row in summary}
    if len(lines) <= _LINES or len({recovery for *_, recovery in lines}) < 2:
        return ALL
    return Counter(row["recovery"] for row in _winners(summary)).most_common(1)[0][0]


def _headline(summary: list[dict[str, Any]], metric: MetricWords) -> str:
    """Who came first at how many budgets; the first budget's winner when there is but one."""
    if not summary:
        return "Nothing was compared."
    winners = _winners(summary)
    best, count = Counter(row["method"] for row in winners).most_common(1)[0]
    methods = len({row["method"] for row in summary})
    over = f"{f.counted(methods, 'method')} at {f.counted(len(winners), 'budget')}"
    if min(row["seeds"] for row in winners) < 2:
        return f"{over}, with one seed: which of them is best cannot be told from one."
    if count < len(winners):
        return f"{over}: {f.method(best)} comes first at {count} of {len(winners)}."
    last = last_measured(winners[0])
    value = f" ({metric.named(last[0])})" if last and len(winners) == 1 else ""
    return f"{over}: {f.method(best)} comes first{' at every one' if len(winners) > 1 else ''}{value}."


def _point(
    budget: float | str, rows: list[dict[str, Any]], stage: str, metric: MetricWords, *, of_heads: bool
) -> tuple[Any, ...]:
    """A budget's x, (least, mean, greatest) value over seeds as drawn, and its hover text."""
    values = stage_values(rows, stage)
    macs, kept = (fmean(r[of] or 0 for r in rows) for of in ("macs_ratio", "kept"))
    span = (min(values), fmean(values), max(values))
    heads = f"{kept:.4g} heads, " if of_heads else ""
    text = f"budget {budget}: {heads}{f.percent(macs)} of the MACs<br>{metric.figure(span[1])}"
    if len(values) > 1:
        text += f" ({metric.number(span[0])} – {metric.number(span[2])}, {len(values)} seeds)"
    return kept if of_heads else 100 * macs, tuple(metric.scale * value for value in span), text


def lines(comparison: Comparison, stage: str, *, recovery: str) -> go.Figure:
    """The metric after a step against MACs, or heads: a line a method, allocation and recovery.

    Before recovery a method's lines are one and the same: it is drawn once, without its recovery's name.

    Args:
        comparison: with its rows.
        stage: the step.
        recovery: which to draw; :data:`ALL`, or nothing where there is but one.
    """
    from coprune.report.theme import BASE, HUES, SHAPES, figure, points, rule, safe, whiskers

    content, metric = comparison.model_dump(mode="json"), metric_of(comparison)
    every, of_heads = _recoveries(content), _of_heads(content)
    methods, ways = (
        list(dict.fromkeys(row[of] for row in content["rows"])) for of in ("method", "allocation")
    )
    found: dict[tuple[str, str | None, str], list[tuple[Any, ...]]] = {}
    for (budget, method, way, own), rows in together(content["rows"]).items():
        if recovery in (own, ALL, "") and stage_values(rows, stage):
            point = _point(budget, rows, stage, metric, of_heads=of_heads)
            found.setdefault((method, way, own), []).append(point)
    drawn: dict[tuple[str, str | None, tuple[Any, ...]], list[str]] = {}
    for method, way, own in product(methods, ways, every):
        if (method, way, own) in found:
            drawn.setdefault((method, way, tuple(sorted(found[method, way, own]))), []).append(own)
    traces = []
    for (method, way, line), same in drawn.items():
        at, name, dash = methods.index(method), f.method(method), "solid"
        if len({other[1] for other in drawn if other[0] == method}) > 1:
            name += f" · {way}"
            dash = _DASHES_OF_WAYS[ways.index(way) % 3]
        if recovery == ALL and len(same) == 1:
            name += f" · {'no recovery' if same[0] == 'none' else f.recovery(same[0])}"
            dash = _DASHES[every.index(same[0]) % len(_DASHES)]
        x, spans, texts = zip(*line, strict=True)
        color, about = HUES[at % len(HUES)], [f"<b>{safe(name)}</b><br>{text}" for text in texts]
        more = {"error_y": whiskers(spans, color), "symbol": SHAPES[at % len(SHAPES)], "name": safe(name)}
        more |= {"mode": "lines+markers", "line": {"color": color, "dash": dash}}
        traces.append(points(x, [mean for _, mean, _ in spans], about, color, **more))
    title = "heads kept" if of_heads else "MACs left, % of the base"
    if not traces:
        title = "With this recovery the step was not measured."
    base = metric.scale * comparison.base.value
    axis = metric.axis([base, *(y for trace in traces for y in trace["y"])])
    across = rule(base, f"base {metric.figure(comparison.base.value)}", BASE, log=axis.get("type") == "log")
    layout = {"xaxis_title_text": title, "yaxis": axis, "margin": {"t": 20, "b": 60}, "showlegend": True}
    layout["legend"] = {"y": -0.16, "yanchor": "top"}
    return figure(traces, height=420 + 22 * -(-len(traces) // 3), rules=[across], **layout)


def _above_chance(base: BaseFigures) -> float:
    """Value from which on a model is surely (95 %) better than always answering the commonest class."""
    if base.constant is None or not base.samples:
        return 0.0 if base.unit == "%" and base.higher_is_better else -math.inf
    return float(base.constant + 1.645 * (base.constant * (1 - base.constant) / base.samples) ** 0.5)


def _table(
    rows: list[dict[str, Any]], measured: list[str], base: BaseFigures, metric: MetricWords
) -> dict[str, Any]:
    """One budget's rows with their change against the base; the best of every stage, where it can be told."""
    floor, best, changes = _above_chance(base), {}, []
    for stage in measured if len(rows) > 1 else ():
        means = [row[stage][0] for row in rows if row[stage] is not None and row["seeds"] > 1]
        top = max(means, key=lambda mean: metric.sign * mean, default=floor)
        if top > floor:
            best[stage] = top
    for row in rows:
        diverged = "finetuned" in measured and row["finetuned"] is None
        last = None if diverged else last_measured(row)
        changes.append("–" if last is None else metric.signed(last[0]))
    return {"budget": rows[0]["budget"], "rows": list(zip(rows, changes, strict=True)), "best": best}
