"""``coprune train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from coprune.cli import options as o


def train(
    model: o.Model,
    data: o.Data,
    out: o.Out,
    epochs: Annotated[int, typer.Option(min=1)] = 8,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    optimizer: Annotated[str, typer.Option(help="sgd, or adamw (for transformers)")] = "sgd",
    schedule: Annotated[str, typer.Option(help="onecycle, cosine, linear, step or constant")] = "onecycle",
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the rate first rises.")] = 0.0,
    clip: Annotated[Optional[float], typer.Option(help="Largest norm of a step's gradient.")] = None,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16")] = "auto",
    in_channels: o.InChannels = None,
    num_classes: o.NumClasses = None,
    width: o.Width = None,
    weights: o.Weights = None,
    tokenizer: o.Tokenizer = None,
    trust: o.Trust = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: o.Threads = None,
    resume: o.Resume = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Train a base model and write it as a run folder."""
    from coprune.cli.values import model_arguments, validated
    from coprune.run.train import TrainJob
    from coprune.run.train import train as run_train
    from coprune.training import Recipe

    recipe = validated(
        Recipe,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        warmup=warmup,
        clip=clip,
        weight_decay=weight_decay,
        precision=precision,
    )
    job = TrainJob(
        model=model,
        data=data,
        recipe=recipe,
        seed=seed,
        device=device,
        threads=threads,
        weights=str(weights) if weights else None,
        tokenizer=tokenizer,
        trust=trust,
        arguments=model_arguments(in_channels, num_classes, width),
    )
    command = " ".join(["coprune", *sys.argv[1:]])
    score = run_train(job, out=Path(out), resume=resume, overwrite=overwrite, command=command)
    typer.echo(f"top-1 {score.top1:.2%} on {score.samples:,} held-out samples · {out}")
