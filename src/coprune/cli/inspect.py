"""``coprune inspect`` and ``report``: a run that is finished."""

from __future__ import annotations

from coprune.cli.command import Run
from coprune.cli.terminal import say, table


def inspect(run: Run) -> None:
    """Say what stayed in every group, why, and which layers were left alone."""
    from coprune.folders import mend
    from coprune.plan import Plan
    from coprune.report import sentences
    from coprune.report.metric import of_run
    from coprune.result import Result

    mend(run)
    plan = Plan.load(run / "plan.json")
    say(
        f", {plan.budget}, seed {plan.seed}, data {plan.data.get('name', 'not stated')}, "
        f"kept {plan.units['kept']} of {plan.units['total']}",
        bold=plan.method,
    )
    if (run / "result.json").is_file():
        result = Result.load(run / "result.json")
        metric, last = of_run(plan, result), sentences.last_stage(result)
        if last and metric.name != "top1":
            say(f"{metric.task}: {metric.outcome(last.value)}{metric.better}")
    say()
    rows = []
    for group in plan.groups:
        # The knee of all groups together is no number of units of any of them.
        knee = (
            "" if group.knee is None or plan.joint else f"{group.knee.k}{'*' if group.knee.fallback else ''}"
        )
        rows.append((group.name, str(len(group.kept)), str(group.size), knee, group.reason))
    table(("group", ">kept", ">of", ">knee", "why"), rows)
    if plan.joint and plan.knees:
        (knee_of_all,) = plan.knees
        line = f"the knee says {knee_of_all.k} of {plan.units['total']} units"
        say(line + (f" ({knee_of_all.fallback})" if knee_of_all.fallback else ""))
    for group in () if plan.joint else plan.groups:
        if group.knee and group.knee.fallback:
            say(f"* {group.name}: {group.knee.fallback}")
    if plan.skipped:
        say()
        say("left alone:")
    for skipped in plan.skipped:
        say(f"  {skipped.layer}: {skipped.reason}")


def report(run: Run) -> None:
    """Write the page of a run or of a comparison anew."""
    from coprune.folders import check_idle
    from coprune.report import write, write_compare

    check_idle(run)
    page = write_compare(run) if (run / "compare.json").is_file() else write(run)
    say(str(page))
