"""``coprune compare``: methods × budgets × seeds in one table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from coprune.cli.terminal import say, table
from coprune.pipeline.compare_job import CompareJob
from coprune.pipeline.jobs import Writing

if TYPE_CHECKING:
    from coprune.comparison import Comparison


def compare(job: CompareJob, to: Writing) -> None:
    """Compare methods at the same MACs, with the same recovery and the same fine-tuning."""
    job.check(**dict(to))
    from coprune.pipeline.compare import run_compare

    print_comparison(run_compare(job, **dict(to)))
    say()
    say(f"table   {to.out / 'compare.json'}")
    say(f"report  {to.out / 'compare.html'}")


def print_comparison(comparison: Comparison) -> None:
    """The table of means and spreads on one screen, best first within a budget."""
    from coprune.report import notes_of, summarise
    from coprune.report.compare import metric_of

    base, metric = comparison.base, metric_of(comparison)
    stages = (f">{stage}{metric.arrow}" for stage in ("pruned", "recovered", "fine-tuned"))
    columns = ("budget", "method", "allocation", "recovery", ">MACs", *stages, ">seeds")
    rows: list[tuple[str, ...] | None] = []

    def cell(stage: tuple[float, float] | None, seeds: int) -> str:
        if stage is None:
            return "–"
        return metric.number(stage[0]) + (f"±{metric.number(stage[1])}" if seeds > 1 else "")

    before = None
    for row in summarise(comparison.model_dump(mode="json")):
        budget, seeds = row["budget"], row["seeds"]
        said = f"{budget:g}" if isinstance(budget, float) else str(budget)
        which = ("" if budget == before else said, row["method"], row["allocation"] or "–", row["recovery"])
        figures = (cell(row[stage], seeds) for stage in ("pruned", "recovered", "finetuned"))
        rows += [] if before in (None, budget) else [None]
        rows.append((*which, f"{row['macs_ratio']:.1%}", *figures, str(seeds)))
        before = budget
    several = len({row.seed for row in comparison.rows}) > 1
    spread = "mean±deviation" if several else "one seed, which says of no method that it is the better one"
    say()
    value = metric.number(base.value) + metric.unit
    say(f"base {value} at {base.macs / 1e6:.2f} M MACs; {metric.heading}, {spread}")
    say()
    # In a file the table keeps its lines; on a narrow terminal rich folds it.
    table(columns, rows, width=None if sys.stdout.isatty() else 100)
    for line in notes_of(comparison.model_dump(mode="json")):
        say(f"note: {line}")
