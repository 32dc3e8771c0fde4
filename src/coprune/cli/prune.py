"""``coprune prune``: from a trained model to a run folder."""

from __future__ import annotations

from coprune.cli.summary import summarise
from coprune.methods.registry import described
from coprune.pipeline.jobs import PruneJob, Writing


def prune(job: PruneJob, to: Writing) -> None:
    """Prune a trained model."""
    job.check(**dict(to))
    from coprune.pipeline.prune import run_prune

    summarise(run_prune(job, **dict(to)))


prune.__doc__ = f"""Prune a trained model: select, cut, recover, fine-tune, measure, report.

Methods: {described()}. Without a budget the method's own knee decides.
"""
