"""``coprune inspect``, ``report`` and ``measure``: look at a run that is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coprune.cli import options as o

Run = Annotated[Path, typer.Argument(help="A run folder.")]


def inspect(run: Run) -> None:
    """Say what stayed in every group, why, and which layers were left alone."""
    from coprune.cli.terminal import say, table
    from coprune.folders import mend
    from coprune.plan import Plan

    mend(run)
    plan = Plan.load(run / "plan.json")
    say(
        f", {plan.budget}, seed {plan.seed}, data {plan.data.get('name')}, "
        f"kept {plan.units['kept']} of {plan.units['total']}",
        bold=plan.method,
    )
    say()
    rows = []
    for group in plan.groups:
        # The knee of all groups together is no number of units of any of them.
        knee = (
            "" if group.knee is None or plan.joint else f"{group.knee.k}{'*' if group.knee.fallback else ''}"
        )
        rows.append((group.name, str(len(group.kept)), str(group.size), knee, group.reason))
    names = ("group", "kept", "of", "knee", "why")
    table([(name, "right" if name in ("kept", "of", "knee") else "left") for name in names], rows)
    if plan.joint and plan.knees:
        (knee_of_all,) = plan.knees
        said = f"the knee says {knee_of_all.k} of {plan.units['total']} units"
        say(said + (f" ({knee_of_all.fallback})" if knee_of_all.fallback else ""))
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
    from coprune.cli.terminal import say
    from coprune.folders import check_idle
    from coprune.report import write, write_compare

    check_idle(run)
    page = write_compare(run) if (run / "compare.json").is_file() else write(run)
    say(str(page))


def measure(
    run: Run,
    data: Annotated[str, typer.Option(help="Also measure accuracy on this data's held-out part.")] = "",
    input_shape: Annotated[
        str, typer.Option(help="Of one sample, e.g. 1,28,28; not needed with --data.")
    ] = "",
    latency_batches: o.LatencyBatches = "1,32",
    engine: Annotated[str, typer.Option(help="What to time with: torch, onnxruntime, or both.")] = "torch",
    threads: o.Threads = None,
    device: o.Device = "auto",
    trust: o.Trust = False,
) -> None:
    """Measure the model of a run: MACs, parameters, file size, peak memory, latency, accuracy."""
    from coprune.bounds import Batch, Length, Threads
    from coprune.cli.parsing import checked, numbers, words
    from coprune.cli.terminal import say
    from coprune.errors import UserError
    from coprune.pipeline.measure import measure_run

    shape = numbers(input_shape, name="input_shape", kind=Length)
    if not data and not shape:
        raise UserError("measure needs --data or --input-shape to know what the model reads")
    if data and shape:
        raise UserError("give --data or --input-shape, not both")
    found = measure_run(
        run,
        data=data or None,
        shape=shape,
        batches=numbers(latency_batches, name="latency_batches", kind=Batch),
        threads=checked(Threads | None, threads, name="threads"),
        device=device,
        engines=words(engine, name="engine"),
        trust=trust,
    )
    for line in found:
        say(line)
