"""``coprune train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from coprune.cli import options as o

LR = "Highest learning rate; 0.1 by default; of transformers 2e-5, or 3e-4 without trained weights."
SCHEDULE = "onecycle, cosine, linear, step or constant; onecycle by default, linear of transformers."


def train(
    model: o.Model,
    data: o.Data,
    out: o.Out,
    epochs: Annotated[int, o.Number("Passes over the training samples.")] = 8,
    lr: Annotated[Optional[float], o.Number(LR)] = None,
    batch_size: o.BatchSize = None,
    optimizer: Annotated[Optional[str], typer.Option(help=o.OPTIMIZER)] = None,
    schedule: Annotated[Optional[str], typer.Option(help=SCHEDULE)] = None,
    warmup: o.FinetuneWarmup = None,
    clip: o.FinetuneClip = None,
    weight_decay: o.FinetuneWeightDecay = None,
    precision: o.Precision = None,
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
    from coprune.bounds import Bounds
    from coprune.cli.parsing import checked, model_arguments, validated
    from coprune.cli.terminal import say
    from coprune.pipeline.train import TrainJob
    from coprune.pipeline.train import train as run_train
    from coprune.training.defaults import training

    recipe = validated(
        training,
        epochs=checked(Annotated[int, Bounds(1, 100_000)], epochs, name="epochs"),
        lr=lr,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        warmup=warmup,
        clip=clip,
        weight_decay=weight_decay,
        precision=precision,
    )
    job = validated(
        TrainJob,
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
    say(f"top-1 {score.top1:.2%} on {score.samples:,} held-out samples · {out}")
