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
    from coprune.cli.terminal import say
    from coprune.options import made
    from coprune.pipeline.jobs import TrainJob
    from coprune.pipeline.train import train as run_train

    typed = locals()
    job = made(TrainJob, {**typed, "weights": str(weights) if weights else None})
    command = " ".join(["coprune", *sys.argv[1:]])
    score = run_train(job, out=Path(out), resume=resume, overwrite=overwrite, command=command)
    say(f"top-1 {score.top1:.2%} on {score.samples:,} held-out samples · {out}")
