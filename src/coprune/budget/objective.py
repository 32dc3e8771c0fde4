"""What a searched budget tries: models recovered on one part of the calibration data, judged on others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from coprune.budget.counts import Budget, least_counts
from coprune.budget.decide import Choices, decide, kept_ratio, spendable
from coprune.budget.search import (
    KNEE_SHARES,
    Found,
    least_provable,
    search_drop,
    search_knee,
    search_latency,
)
from coprune.budget.validation import Measured
from coprune.data import Source
from coprune.distributed.collectives import on_first
from coprune.errors import UserError, setting
from coprune.measure import median_ms
from coprune.methods.base import Method
from coprune.pipeline.context import Prepared, recover
from coprune.pipeline.judging import Judging
from coprune.pipeline.settings import PruneSettings
from coprune.plan import GroupDecision
from coprune.result import Code, Note
from coprune.surgery import cut


def is_judged(settings: PruneSettings, method: Method) -> bool:
    """Whether recovered models are judged on samples of their own to find the size."""
    own_curve = settings.budget.empty and method.knee_of_curve and settings.schedule == "oneshot"
    return settings.budget.max_drop is not None or own_curve


@dataclass(frozen=True)
class Trials:
    """Everything that a search needs to try a model."""

    model: nn.Module
    prepared: Prepared
    choices: Choices
    settings: PruneSettings
    measured: Measured | None
    statistics: Source
    judging: Judging
    device: str

    def run(self) -> tuple[tuple[GroupDecision, ...], Found | None, list[Note]]:
        """Decisions, the probes of a search that judges accuracy, and notes."""
        budget, cost = self.settings.budget, spendable(self.prepared.cost, self.choices)
        least = cost.ratio(least_counts(cost.sizes, self.settings.round_to))
        if budget.latency_ms is not None:
            decisions, ms, smallest = search_latency(
                least, budget.latency_ms, decide=self.at, time_ms=self.time_ms
            )
            if ms > budget.latency_ms:
                raise UserError(
                    f"latency_ms={budget.latency_ms:g} cannot be reached: one unit in every group still "
                    f"takes {smallest:.3g} ms here; ask for at least that much"
                )
            return decisions, None, [Note(Code.SEARCH, f"{ms:.3g} ms a sample when it was chosen")]
        base, z = self.judging.right(self.model, device=self.device), self.judging.z
        if budget.max_drop is not None:
            found = search_drop(least, base, budget.max_drop, decide=self.at, judge=self.judge, z=z)
            return found.decisions, found, []
        found, rule = search_knee(least, base, decide=self.at, judge=self.judge, z=z)
        notes = [Note(Code.SEARCH, f"the knee of recovered accuracy over MACs: {rule}")]
        if least > max(KNEE_SHARES):
            most = f"at most {1 - least:.1%} of the MACs can be removed{self.prepared.more}"
            notes.append(Note(Code.SEARCH, most))
        return found.decisions, found, notes

    def at(self, share: float) -> tuple[float, tuple[GroupDecision, ...]]:
        """The decisions for a share of the MACs."""
        budget, cost = self.settings.budget, self.prepared.cost
        decisions = decide(
            Budget(keep_macs=min(1.0, share)),
            cost,
            self.choices,
            allocation=self.settings.allocation,
            measured=self.measured,
            round_to=self.settings.round_to,
            why="the knee of the recovered curve" if budget.empty else f"{budget.words} allows it",
        )
        return kept_ratio(cost, decisions), decisions

    def time_ms(self, decisions: tuple[GroupDecision, ...]) -> float:
        """Milliseconds of one sample of the cut model."""
        example = self.prepared.example
        candidate = cut(self.model, decisions, example)
        # Decisions follow from it, so all processes must hear the same.
        return on_first(lambda: median_ms(candidate, example, device=self.device))

    def judge(self, decisions: tuple[GroupDecision, ...]) -> Tensor:
        """Which judging samples the cut and recovered model has right, ``[N]`` bool."""
        settings = self.settings
        candidate = cut(self.model, decisions, self.prepared.example)
        recover(
            candidate,
            self.model,
            decisions,
            self.statistics,
            how=settings.recovery,
            seed=settings.seed,
            device=self.device,
        )
        return self.judging.right(candidate, device=self.device, label="accuracy, probe")


def why_nothing(settings: PruneSettings, found: Found | None, judging: Judging) -> str:
    """Why every unit stayed, for a note."""
    limit = settings.budget.max_drop
    if found is not None and limit is None:
        return "at the knee of the recovered curve every unit stays; give --keep-macs or --max-drop"
    if found is None or limit is None:
        return f"the budget ({settings.budget.words}) keeps every unit"
    more = "validation" if judging.on == "validation" else setting("calibration_samples")
    more = f"more {more} samples"
    samples, least = len(judging.source), least_provable(len(judging.source), z=judging.z)
    if limit < least:
        return (
            f"{samples:,} judging samples cannot show a loss of at most {limit:g} points; "
            f"allow {least:.2g} or more, or give {more}"
        )
    return f"no smaller model that was tried surely lost at most {limit:g} points; {more} make it surer"
