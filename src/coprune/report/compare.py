"""The page of a comparison: ``folder/compare.json`` → ``folder/compare.html``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from coprune.files import Count, Figure, read_document, write_text
from coprune.report import formatting as words
from coprune.report.page import page
from coprune.report.summary import STAGES, last_measured, notes_of, read_budget, stage_values, summarise

SCHEMA = 1
_LINES = 8
_STEPS = {**words.STAGES, "pruned": "Right after surgery"}


class _Base(BaseModel):
    model_config = ConfigDict(extra="allow")

    value: Figure
    macs: Count
    params: Count


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow")

    method: str
    budget: Figure | str
    seed: int
    macs_ratio: Figure
    pruned: Figure | None = None
    recovered: Figure | None = None
    finetuned: Figure | None = None
    recovery: str = "none"
    kept: Count | None = None
    notes: tuple[str, ...] | None = ()


class _Comparison(BaseModel):
    model_config = ConfigDict(extra="allow")

    schema_version: int = Field(SCHEMA, alias="schema")
    base: _Base
    rows: list[_Row]
    left_out: tuple[str, ...] = ()
    job: dict[str, Any] | None = None


def render_compare(compare: dict[str, Any]) -> str:
    """One self-contained HTML page about a comparison; it asks for no other file.

    Args:
        compare: the content of ``compare.json``; accuracies are fractions, a stage that was not asked
            for is None.

    Returns:
        The page.
    """
    rows = compare["rows"]
    summary = summarise(compare)
    measured = [stage for stage in STAGES if any(r[stage] is not None for r in summary)]
    counts = sorted({r["seeds"] for r in summary})
    of_heads = _of_heads(compare)
    return page(
        "compare.html.j2",
        data={
            "base": compare["base"]["value"],
            "stages": [[stage, _STEPS[stage]] for stage in measured],
            "series": _series(rows, measured),
            "recoveries": [[name, words.recovery(name)] for name in _recoveries(rows)],
            "shown": _shown(summary),
            "heads": of_heads,
        },
        title="Comparison of pruning methods",
        headline=_headline(summary),
        base=compare["base"],
        seeds=" to ".join(str(c) for c in dict.fromkeys((counts[0], counts[-1]))) if counts else "0",
        budgets=[
            (_budget(budget, of_heads=of_heads), _table(list(part), measured, compare["base"]))
            for budget, part in groupby(summary, key=lambda r: r["budget"])
        ],
        stages=[words.STAGES[stage] for stage in measured],
        of_heads=of_heads,
        notes=notes_of(compare),
    )


def write_compare(folder: Path) -> Path:
    """Render a comparison's page beside its ``compare.json``.

    Returns:
        ``folder/compare.html``.

    Raises:
        UserError: ``compare.json`` is missing, truncated or foreign, or the page cannot be written.
    """
    folder = Path(folder)
    content = read_document(folder / "compare.json", _Comparison, what="comparison", schema=SCHEMA)
    target = folder / "compare.html"
    write_text(target, render_compare(content.model_dump(by_alias=True)))
    return target


def _label(method: str, recovery: str, recoveries: list[str]) -> str:
    if len(recoveries) < 2:
        return words.method(method)
    return f"{words.method(method)} · {'no recovery' if recovery == 'none' else words.recovery(recovery)}"


def _recoveries(rows: list[dict[str, Any]]) -> list[str]:
    """Those that occur, in the order of :data:`words.RECOVERIES`, unknown ones last."""
    found = {row.get("recovery") or "none" for row in rows}
    known = [name for name in words.RECOVERIES if name in found]
    return known + sorted(found - set(known))


def _shown(summary: list[dict[str, Any]]) -> str | None:
    """The recovery the chart starts with: None for all, while the lines can be told apart."""
    lines = {(row["method"], row["recovery"]) for row in summary}
    if len(lines) <= _LINES or len({recovery for _, recovery in lines}) < 2:
        return None
    winners = [next(part)["recovery"] for _, part in groupby(summary, key=lambda r: r["budget"])]
    return max(dict.fromkeys(winners), key=winners.count)


def _of_heads(compare: dict[str, Any]) -> bool:
    """Whether the budgets are shares of the attention heads, and every row says how many it kept."""
    asked = (compare.get("job") or {}).get("budget_of") == "heads"
    return asked and all(row.get("kept") is not None for row in compare["rows"])


def _budget(budget: float | str, *, of_heads: bool) -> str:
    if isinstance(budget, str):
        return f"Budget: {budget}"
    return f"Budget: keep {words.percent(budget, 0)}" + (" of the heads" if of_heads else "")


def _headline(summary: list[dict[str, Any]]) -> str:
    """Who came first at how many budgets; the first budget's winner when there is but one."""
    if not summary:
        return "Nothing was compared."
    winners = [next(part) for _, part in groupby(summary, key=lambda r: r["budget"])]
    wins: dict[str, int] = {}
    for row in winners:
        wins[row["method"]] = wins.get(row["method"], 0) + 1
    best, count = max(wins.items(), key=lambda w: w[1])
    methods = len({r["method"] for r in summary})
    over = f"{methods} method{'s' if methods > 1 else ''} at {len(winners)} budget{'s' * (len(winners) > 1)}"
    if min(row["seeds"] for row in winners) < 2:
        return f"{over}, with one seed: which of them is best cannot be told from one."
    if count < len(winners):
        return f"{over}: {words.method(best)} comes first at {count} of {len(winners)}."
    row = winners[0]
    last = last_measured(row)
    value = f" ({words.percent(last[0], 2)})" if last and len(winners) == 1 else ""
    return f"{over}: {words.method(best)} comes first{' at every one' if len(winners) > 1 else ''}{value}."


def _series(rows: list[dict[str, Any]], measured: list[str]) -> list[dict[str, Any]]:
    """One line a method and recovery; a point a budget: mean, least and greatest over seeds."""
    recoveries = _recoveries(rows)
    lines: dict[tuple[str, str], dict[float | str, list[dict[str, Any]]]] = {}
    for row in rows:
        line = lines.setdefault((row["method"], row.get("recovery") or "none"), {})
        line.setdefault(read_budget(row["budget"]), []).append(row)
    series = []
    for (method, recovery), budgets in lines.items():
        points: dict[str, list[dict[str, Any]]] = {stage: [] for stage in measured}
        for budget, same in budgets.items():
            for stage in measured:
                values = stage_values(same, stage)
                if values:
                    points[stage].append(
                        {
                            "macs": sum(r["macs_ratio"] for r in same) / len(same),
                            "kept": sum(r.get("kept") or 0 for r in same) / len(same),
                            "mean": sum(values) / len(values),
                            "low": min(values),
                            "high": max(values),
                            "seeds": len(values),
                            "budget": str(budget),
                        }
                    )
        for stage in measured:
            points[stage].sort(key=lambda p: (p["macs"], p["kept"]))
        series.append(
            {
                "label": _label(method, recovery, recoveries),
                "name": words.method(method),
                "method": method,
                "recovery": recovery,
                "variant": recoveries.index(recovery),
                "points": points,
            }
        )
    return series


def _above_chance(base: dict[str, Any]) -> float:
    """Accuracy from which on a model is surely (95 %) better than always answering the commonest class."""
    constant, samples = base.get("constant"), base.get("samples")
    if constant is None or not samples:
        return 0.0
    return float(constant + 1.645 * (constant * (1 - constant) / samples) ** 0.5)


def _table(rows: list[dict[str, Any]], measured: list[str], base: dict[str, Any]) -> list[dict[str, Any]]:
    """One budget's rows as text; the best of every stage is marked, where there is one to be told."""
    best = {s: max((r[s][0] for r in rows if r[s] is not None), default=0.0) for s in measured}
    floor = _above_chance(base)
    table = []
    for row in rows:
        diverged = "finetuned" in measured and row["finetuned"] is None
        last = None if diverged else last_measured(row)
        cells = [
            {
                "text": "–"
                if row[s] is None
                else f"{100 * row[s][0]:.2f}"
                + (f"{words.NB}±{words.NB}{100 * row[s][1]:.2f}" if row["seeds"] > 1 else ""),
                "best": len(rows) > 1
                and row["seeds"] > 1
                and row[s] is not None
                and row[s][0] == best[s] > floor,
            }
            for s in measured
        ]
        table.append(
            {
                "method": words.method(row["method"]),
                "recovery": words.recovery(row["recovery"]),
                "macs": words.percent(row["macs_ratio"]),
                "seeds": row["seeds"],
                "cells": cells,
                "change": "–" if last is None else words.points(last[0] - base["value"]).split(words.NB)[0],
            }
        )
    return table
