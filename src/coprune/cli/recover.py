"""``coprune recover``: accuracy back for a pruned model, without labels."""

from __future__ import annotations

from coprune.cli.summary import summarise
from coprune.pipeline.jobs import RecoverJob, Writing


def recover(job: RecoverJob, to: Writing) -> None:
    """Bring back the accuracy of a model that was pruned anywhere: no labels are read."""
    job.check(**dict(to))
    from coprune.pipeline.recover import run_recover

    run, _ = run_recover(job, **dict(to))
    summarise(run)
