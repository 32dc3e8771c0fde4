"""What judges a decision: samples, what they are, and how sure they must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from coprune.budget.search import Probe
from coprune.data import Source, split_source
from coprune.errors import UserError, setting
from coprune.measure import Score, lost
from coprune.measure.evaluation import judged_by
from coprune.measure.intervals import SURE, Loss
from coprune.pipeline.context import Context, judged_in
from coprune.result import Code, Judged, JudgedOn, Note, metric_label, shown_loss
from coprune.task import Task

SOLVED_ON = 1000
"""Calibration samples that selection and recovery get in a search; the others judge. More samples
hardly make them better, while every judge makes the search surer."""


SEEN = 1.4758
"""Normal quantile of 93 %, for a loss that held-out samples are to show. They scatter on their own, and up to
eight models are judged on the same samples, the smallest accepted one taken: with it simulated searches (test
of this module) end with held-out samples beyond the limit in one of ten or less; with 90 % in up to one of
seven, and with the interval of the true loss in one of four."""


@dataclass(frozen=True)
class Judging:
    """Samples that judge.

    Attributes:
        source: the samples.
        on: what they are.
        z: normal quantile of the ends of an interval: of the true loss; with validation samples, of the loss
            that the held-out ones will show, which is wider by what those scatter on their own.
        context: of the run.
        task: its metric judges.
    """

    source: Source
    on: JudgedOn
    z: float
    context: Context
    task: Task

    @property
    def samples(self) -> str:
        """What they are, with the word samples."""
        return f"{self.on} samples" if self.on == "validation" else self.on

    def score(self, model: nn.Module, *, label: str = "judging") -> Score:
        """How good a model is on the samples; it goes back to the CPU."""
        return self.context.score(model, self.source, self.task, label=label)

    def loss(self, before: nn.Module, after: nn.Module) -> Loss:
        """What one model loses against another."""
        return self.lost(self.score(before), self.score(after))

    def lost(self, before: Score, after: Score) -> Loss:
        """The same of two models' scores."""
        return lost(before, after, z=self.z)

    def judged(self, decision: str, loss: Loss, *, allowed: float | None = None) -> Judged:
        """The same as it stands in ``result.json``."""
        return Judged(
            decision=decision,
            on=self.on,
            samples=len(self.source),
            allowed=allowed,
            found=loss.found,
            interval=(loss.low, loss.high) if math.isfinite(loss.high) else None,
            **judged_in(self.task.judged),
        )

    def judged_search(self, probes: Sequence[Probe] | None, allowed: float | None) -> Judged | None:
        """What a search says of the model that it took; None without one."""
        if probes is None:
            return None
        probe = next(probe for probe in probes if probe.chosen)
        decision = "knee" if allowed is None else "max_drop"
        return self.judged(decision, Loss(probe.drop, probe.low, probe.high), allowed=allowed)


def judging_of(context: Context) -> Judging:
    """What judges where no samples need to be set aside for it."""
    data = context.data
    task = judged_by(context.task, data.judging)
    if data.validation is None:
        return Judging(data.calibration, data.calibration_from, SURE, context, task)
    share = len(data.validation) / len(data.heldout)
    return Judging(data.validation, "validation", SEEN * math.sqrt(1 + share), context, task)


def parts_for(context: Context, *, searched: bool) -> tuple[Source, Judging]:
    """Samples for statistics and recovery, and what judges; disjoint in a search.

    Args:
        context: without validation samples the calibration part of its data is split for a search.
        searched: whether recovered models are judged to find the size.

    Raises:
        UserError: fewer than two samples for a search.
    """
    data, judging = context.data, judging_of(context)
    if not searched or data.validation is not None:
        return data.calibration, judging
    if len(data.calibration) < 2:
        raise UserError("a search judges on samples of its own; give two calibration samples or more")
    share = min(0.5, SOLVED_ON / len(data.calibration))
    statistics, own = split_source(data.calibration, (share, 1 - share), seed=context.seed)
    return statistics, replace(judging, source=own)


def notes_on(judged: Judged | None) -> list[Note]:
    """What a user should know of the samples that decided a size."""
    if judged is None or judged.decision not in ("max_drop", "knee") or "training" not in judged.on:
        return []
    text = (
        f"judged on {judged.samples:,} {judged.on}: the unpruned model may have learned them by heart, and "
        f"then loses less on them than on others; give {setting('validation')} samples that it has not seen"
    )
    return [Note(Code.JUDGED_ON_TRAINING, text)]


def more_lost(judged: Judged | None, lost: float) -> list[Note]:
    """The first note, where held-out samples show a greater loss than was allowed.

    Args:
        judged: what decided.
        lost: held-out, in the metric's unit.
    """
    if judged is None or judged.allowed is None or lost <= judged.allowed + 1e-9:
        return []
    low, high = judged.interval or (judged.found, judged.found)
    held_out, found, least, most = (shown_loss(x, judged.unit) for x in (lost, judged.found, low, high))
    unit = "points" if judged.unit == "%" else metric_label(judged.metric)
    text = (
        f"held-out samples show a loss of {held_out} {unit}, more than the {judged.allowed:.4g} allowed; "
        f"on the {judged.samples:,} that judged it was {found} ({least} to {most})"
    )
    return [Note(Code.MORE_LOST, text)]
