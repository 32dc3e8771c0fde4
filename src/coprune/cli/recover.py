"""``coprune recover``: accuracy back for a pruned model, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coprune.cli import options as o


def recover(
    model: Annotated[str, typer.Option(help="The pruned model: a run folder or python:module:factory.")],
    teacher: Annotated[str, typer.Option(help="The unpruned model, under any name that --model takes.")],
    data: o.Data,
    out: o.Out,
    plan: Annotated[
        Optional[Path],
        typer.Option(help="The plan that cut it; else that of its folder, else told by behaviour."),
    ] = None,
    recovery: Annotated[
        str, typer.Option(help="least-squares, reconstruction, channel-least-squares or bn.")
    ] = "least-squares",
    calibration: o.Calibration = 2000,
    validation: o.Validation = None,
    in_channels: o.InChannels = None,
    num_classes: o.NumClasses = None,
    width: o.Width = None,
    weights: o.Weights = None,
    trust: o.Trust = False,
    latency_batches: o.LatencyBatches = "1,32",
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Bring back the accuracy of a model that was pruned anywhere: no labels are read."""
    from coprune.bounds import Batch
    from coprune.cli.parsing import model_arguments, numbers, validated
    from coprune.cli.prune import summarise
    from coprune.pipeline.recover import RecoverJob, run_recover

    job = validated(
        RecoverJob,
        model=model,
        teacher=teacher,
        data=data,
        plan=str(plan) if plan else None,
        recovery=recovery,
        weights=str(weights) if weights else None,
        arguments=model_arguments(in_channels, num_classes, width),
        calibration=calibration,
        validation=validation,
        trust=trust,
        latency_batches=numbers(latency_batches, name="latency_batches", kind=Batch),
        seed=seed,
        device=device,
        threads=threads,
    )
    run, _ = run_recover(job, out=out, resume=resume, overwrite=overwrite)
    summarise(run)
