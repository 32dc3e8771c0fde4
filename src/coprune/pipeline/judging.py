"""What judges a decision: samples, what they are, and how sure they must be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from coprune.budget.search import SURE, Found, Loss, paired_drop
from coprune.data import DataSet, Source, split_source
from coprune.errors import UserError, setting
from coprune.measure import correctness
from coprune.result import Code, Judged, JudgedOn, Note

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
        device: where to compute.
    """

    source: Source
    on: JudgedOn
    z: float = SURE
    device: str = "cpu"

    @property
    def samples(self) -> str:
        """What they are, with the word samples."""
        return f"{self.on} samples" if self.on == "validation" else self.on

    def right(self, model: nn.Module, *, label: str = "accuracy, judging") -> Tensor:
        """Which of the samples a model has right, ``[N]`` bool; the model goes back to the CPU."""
        found = correctness(model, self.source, device=self.device, label=label)
        model.cpu()
        return found

    def loss(self, before: nn.Module, after: nn.Module) -> Loss:
        """What one model loses against another."""
        return self.lost(self.right(before), self.right(after))

    def lost(self, before: Tensor, after: Tensor) -> Loss:
        """The same of two models' right samples, ``[N]`` bool."""
        return paired_drop(before, after, z=self.z)

    def judged(self, decision: str, loss: Loss, *, allowed: float | None = None) -> Judged:
        """The same as it stands in ``result.json``."""
        return Judged(
            decision=decision,
            on=self.on,
            samples=len(self.source),
            allowed=allowed,
            found=loss.found,
            interval=(loss.low, loss.high),
        )

    def judged_search(self, found: Found | None, allowed: float | None) -> Judged | None:
        """What a search says of the model that it took; None without one."""
        if found is None:
            return None
        probe = next(probe for probe in found.probes if probe.chosen)
        decision = "knee" if allowed is None else "max_drop"
        return self.judged(decision, Loss(probe.drop, probe.low, probe.high), allowed=allowed)


def judging_of(data: DataSet, *, device: str = "cpu") -> Judging:
    """What judges where no samples need to be set aside for it."""
    if data.validation is None:
        return Judging(data.calibration, data.calibration_from, device=device)
    share = len(data.validation) / len(data.heldout)
    return Judging(data.validation, "validation", SEEN * math.sqrt(1 + share), device)


def parts_for(data: DataSet, *, seed: int, searched: bool, device: str = "cpu") -> tuple[Source, Judging]:
    """Samples for statistics and recovery, and what judges; disjoint in a search.

    Args:
        data: without validation samples its calibration part is split for a search.
        seed: decides how.
        searched: whether recovered models are judged to find the size.
        device: where to judge.

    Raises:
        UserError: fewer than two samples for a search.
    """
    judging = judging_of(data, device=device)
    if not searched or data.validation is not None:
        return data.calibration, judging
    if len(data.calibration) < 2:
        raise UserError("a search judges on samples of its own; give two calibration samples or more")
    share = min(0.5, SOLVED_ON / len(data.calibration))
    statistics, own = split_source(data.calibration, (share, 1 - share), seed=seed)
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
        lost: held-out points.
    """
    if judged is None or judged.allowed is None or lost <= judged.allowed + 1e-9:
        return []
    low, high = judged.interval or (judged.found, judged.found)
    text = (
        f"held-out samples show a loss of {lost:.2f} points, more than the {judged.allowed:g} allowed; on "
        f"the {judged.samples:,} that judged it was {judged.found:.2f} ({low:.2f} to {high:.2f})"
    )
    return [Note(Code.MORE_LOST, text)]
