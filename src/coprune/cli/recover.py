"""``coprune recover``: a pruned model nearer to the unpruned one, without labels."""

from __future__ import annotations

from coprune.cli.summary import summarise
from coprune.pipeline.jobs import RecoverJob, Writing


def recover(job: RecoverJob, to: Writing) -> None:
    """Bring a model that was pruned anywhere nearer to the unpruned one: no labels are read."""
    job.check(**dict(to))
    from coprune.pipeline.recover import run_recover

    summarise(run_recover(job, **dict(to)))
