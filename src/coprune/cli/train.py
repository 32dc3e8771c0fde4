"""``coprune train``: a base model."""

from __future__ import annotations

import sys

from coprune.cli.terminal import say
from coprune.pipeline.jobs import TrainJob, Writing


def train(job: TrainJob, to: Writing) -> None:
    """Train a base model and write it as a run folder."""
    job.check(**dict(to))
    from coprune.pipeline.train import train as run_train

    score = run_train(job, **dict(to), command=" ".join(["coprune", *sys.argv[1:]]))
    say(f"{score.words} on {score.samples:,} held-out samples · {to.out}")
