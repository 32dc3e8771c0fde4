"""Rows of a comparison brought together over seeds: for the terminal, the README and the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

STAGES = ("pruned", "recovered", "finetuned")


def summarise(compare: dict[str, Any]) -> list[dict[str, Any]]:
    """Group the rows by budget, method, allocation and recovery, and take mean and spread over seeds.

    Args:
        compare: the content of ``compare.json``.

    Returns:
        One dict a group: ``budget`` (a float, or a word such as ``"knee"``), ``method``, ``allocation``
        (None in older files), ``recovery``, ``seeds`` (how many), ``macs_ratio`` (mean), and ``pruned``,
        ``recovered``, ``finetuned``, each ``(mean, std)`` as fractions or None where no row has it; std is
        the sample's (n − 1), 0.0 for one seed. Ordered by budget, words first and then descending, and within
        a budget by the last stage that was measured, best first, as the base says; where others were trained,
        without training last.

    Example:
        >>> row = {"method": "random", "budget": 0.5, "seed": 0, "macs_ratio": 0.5, "recovery": "ls"}
        >>> rows = [{**row, "pruned": 0.2}, {**row, "seed": 1, "pruned": 0.4}]
        >>> [(r["seeds"], round(r["pruned"][0], 3)) for r in summarise({"rows": rows})]
        [(2, 0.3)]
    """
    summary = [
        {
            **{"budget": budget, "method": method, "allocation": allocation, "recovery": recovery},
            "seeds": len({row["seed"] for row in rows}),
            "macs_ratio": statistics.fmean(row["macs_ratio"] for row in rows),
            **{stage: mean_and_std(stage_values(rows, stage)) for stage in STAGES},
        }
        for (budget, method, allocation, recovery), rows in together(compare["rows"]).items()
    ]
    trained = {row["budget"] for row in summary if row["finetuned"] is not None}
    sign = 1 if compare.get("base", {}).get("higher_is_better", True) else -1

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        budget, last = row["budget"], last_measured(row)
        first = (0, budget) if isinstance(budget, str) else (1, -budget)
        untrained = row["budget"] in trained and row["finetuned"] is None
        value = -sign * last[0] if last else math.inf
        return *first, untrained, value, row["method"], row["allocation"] or "", row["recovery"]

    return sorted(summary, key=order)


Line = tuple[float | str, str, str | None, str]
"""What rows of a comparison have in common but for their seeds: budget, method, allocation, recovery."""


def together(rows: Iterable[dict[str, Any]]) -> dict[Line, list[dict[str, Any]]]:
    """The rows of a comparison that differ by nothing but their seeds, in the order of the first of them."""
    found: dict[Line, list[dict[str, Any]]] = {}
    for row in rows:
        words = (row["method"], row.get("allocation"), row.get("recovery") or "none")
        found.setdefault((read_budget(row["budget"]), *words), []).append(row)
    return found


def notes_of(compare: dict[str, Any]) -> list[str]:
    """What is to be known of all rows, who is left out, and of single rows, each with the row that it is of.

    Args:
        compare: the content of ``compare.json``.
    """
    several = len(compare.get("job", {}).get("allocations", ())) > 1
    return [*compare.get("notes", ()), *compare.get("left_out", ())] + [
        f"{row['method']}, budget {row['budget']}, {row['allocation'] + ' allocation, ' if several else ''}"
        f"recovery {row['recovery']}, seed {row['seed']}: {note}"
        for row in compare["rows"]
        for note in row.get("notes") or ()
    ]


def read_budget(budget: float | str) -> float | str:
    """``0.5``, ``"0.5"`` and ``"keep_macs=0.5"`` are one budget; words stay words."""
    try:
        share = float(str(budget).removeprefix("keep_macs="))
    except ValueError:
        return str(budget)
    return share if math.isfinite(share) else str(budget)


def stage_values(rows: Sequence[dict[str, Any]], stage: str) -> list[float]:
    """A stage's values over rows, those that were not asked for left out.

    Training that diverged with one seed is no training to be compared with others' mean over the rest: then
    there are none.
    """
    values = [row.get(stage) for row in rows]
    if stage == "finetuned" and None in values:
        return []
    return [value for value in values if value is not None]


def mean_and_std(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and sample standard deviation (0.0 for one value); None for none."""
    if not values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def last_measured(row: dict[str, Any]) -> tuple[float, float] | None:
    """The last stage of a summary row that was measured."""
    return next((row[stage] for stage in reversed(STAGES) if row[stage] is not None), None)
