"""What a finished run comes to, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coprune.cli.terminal import say, table

if TYPE_CHECKING:
    from coprune.report.metric import MetricWords
    from coprune.result import Stage


def summarise(run: Path) -> None:
    """Print a finished run on one screen, naming its files."""
    from coprune.pipeline.measure import promise_note, speedup
    from coprune.plan import Plan
    from coprune.report import sentences
    from coprune.report.metric import of_run
    from coprune.result import Code, Result
    from coprune.store.model import needs_trust

    plan, result = Plan.load(run / "plan.json"), Result.load(run / "result.json")
    base, units, metric = result.stages[0], result.units, of_run(plan, result)
    say()
    say(
        f" ({plan.budget}, seed {result.seed}) kept {units['kept']} of {units['total']} units in "
        f"{len(plan.groups)} groups",
        bold=result.method,
    )
    say()
    _print_stages(result.stages, metric)
    for note in result.notes:
        if note.code == Code.MORE_LOST:
            say(bold=f"note: {note}")
    if result.judged:
        say(f"judged   {sentences.judged(result.judged, metric)}")
    if held_out := sentences.held_out(plan, result):
        say(f"held out {held_out}; {result.calibration or 0:,} for calibration")
    for entry in result.latency:
        say(
            f"batch {entry.batch}, {entry.threads} threads, {entry.device}: {entry.base_ms:.2f} → "
            f"{entry.pruned_ms:.2f} ms, {speedup(entry)} (median of {entry.repeats})"
        )
    share = result.stages[-1].macs / base.macs
    slow = promise_note(result.latency, share=share, plan=plan)
    if slow:
        say(f"note: {slow}")
    if plan.knees:
        fallbacks = sum(1 for k in plan.knees if k.fallback)
        line = f"the knee says {sum(k.k for k in plan.knees)} of {units['total']} units"
        say(line + (f" ({fallbacks} by fallback)" if fallbacks else ""))
    for note in result.notes:
        if note.code != Code.MORE_LOST:
            say(f"note: {note}")
    say()
    say(f"{len(plan.skipped)} layers left alone (why: coprune inspect {run})")
    trust = ", trust=True" if needs_trust(run) else ""
    say(f"model   {run / 'model.safetensors'}   coprune.load({str(run)!r}{trust})")
    for what, file in (("plan", "plan.json"), ("figures", "result.json"), ("report", "report.html")):
        say(f"{what:7} {run / file}")


def _print_stages(stages: Sequence[Stage], metric: MetricWords) -> None:
    base = stages[0]
    table(
        ("", f">{metric.label}{metric.arrow}", ">MACs", ">", ">parameters", ">", ">file"),
        [
            (
                stage.name,
                metric.number(stage.value) + metric.unit,
                f"{stage.macs / 1e6:.2f} M",
                f"{stage.macs / base.macs:.0%}",
                f"{stage.params:,}",
                f"{stage.params / base.params:.0%}",
                f"{(stage.bytes or 0) / 1e6:.2f} MB",
            )
            for stage in stages
        ],
    )
