"""``coprune train``: a base model."""

from __future__ import annotations

import sys

from coprune.cli.terminal import say
from coprune.pipeline.jobs import TrainJob, Writing
from coprune.result import metric_label, shown_value


def train(job: TrainJob, to: Writing) -> None:
    """Train a base model and write it as a run folder."""
    job.check(**dict(to))
    from coprune.pipeline.train import train as run_train

    found = run_train(job, **dict(to), command=" ".join(["coprune", *sys.argv[1:]]))
    value = f"{metric_label(found.metric)} {shown_value(found.value, found.unit)}"
    say(f"{value} on {found.samples:,} held-out samples · {to.out}")
