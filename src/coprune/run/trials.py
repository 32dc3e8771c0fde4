"""What a searched budget tries: models recovered on one part of the calibration data, judged on the other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from coprune.data import DataSet, Source, split_source
from coprune.errors import UserError
from coprune.measure import correctness, median_ms
from coprune.plan import GroupDecision
from coprune.ranks.exchange import on_first
from coprune.result import Code, Note
from coprune.run.decisions import Choices, decide, kept_ratio, spendable
from coprune.run.measured import Measured
from coprune.run.search import (
    KNEE_SHARES,
    Found,
    least_provable,
    paired_drop,
    search_drop,
    search_knee,
    search_latency,
    within,
)
from coprune.run.settings import PruneSettings
from coprune.run.steps import Prepared, recover
from coprune.select import Budget, Method, least_counts
from coprune.surgery import cut

SOLVED_ON = 1000
"""Calibration samples that selection and recovery get in a search; the others judge. More samples
hardly make them better, while every judge makes the search surer."""


def is_judged(settings: PruneSettings, method: Method) -> bool:
    """Whether recovered models are judged on samples of their own to find the size."""
    own_curve = settings.budget.empty and method.knee_of_curve and settings.schedule == "oneshot"
    return settings.budget.max_drop is not None or own_curve


def calibration_parts(data: DataSet, settings: PruneSettings, *, judged: bool) -> tuple[Source, Source]:
    """Samples for statistics and recovery, and samples to judge a search on; disjoint in a search.

    Args:
        data: whose calibration part is split.
        settings: the seed decides how.
        judged: see :func:`is_judged`.

    Raises:
        UserError: fewer than two samples for a search.
    """
    if not judged:
        return data.calibration, data.calibration
    if len(data.calibration) < 2:
        raise UserError("a search judges on samples of its own; give two calibration samples or more")
    share = min(0.5, SOLVED_ON / len(data.calibration))
    statistics, judging = split_source(data.calibration, (share, 1 - share), seed=settings.seed)
    return statistics, judging


@dataclass(frozen=True)
class Trials:
    """Everything that a search needs to try a model."""

    model: nn.Module
    prepared: Prepared
    choices: Choices
    settings: PruneSettings
    measured: Measured | None
    statistics: Source
    judging: Source
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
        base = correctness(self.model, self.judging, device=self.device, label="accuracy, calibration")
        self.model.cpu()
        if budget.max_drop is not None:
            found = search_drop(least, base, budget.max_drop, decide=self.at, judge=self.judge)
            return found.decisions, found, []
        found, rule = search_knee(least, base, decide=self.at, judge=self.judge)
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
        return correctness(candidate, self.judging, device=self.device, label="accuracy, probe")


def surely_within(limit: float, model: nn.Module, pruned: nn.Module, judging: Source, device: str) -> bool:
    """Whether the loss against the unpruned model is within a limit, as surely as a probe's must be."""
    base = correctness(model, judging, device=device, label="accuracy, calibration")
    model.cpu()
    return within(limit, paired_drop(base, correctness(pruned, judging, device=device)))


def surely_worse(before: nn.Module, after: nn.Module, judging: Source, device: str) -> bool:
    """Whether a model surely says less than it did before some step: the whole interval of its loss is."""
    right = (correctness(m, judging, device=device, label="accuracy, calibration") for m in (before, after))
    return paired_drop(*right)[1] > 0


def why_nothing(settings: PruneSettings, found: Found | None, samples: int) -> str:
    """Why every unit stayed, for a note."""
    limit = settings.budget.max_drop
    if found is not None and limit is None:
        return "at the knee of the recovered curve every unit stays; give --keep-macs or --max-drop"
    if found is None or limit is None:
        return f"the budget ({settings.budget.words}) keeps every unit"
    least = least_provable(samples)
    if limit < least:
        return (
            f"{samples:,} judging samples cannot show a loss of at most {limit:g} points; "
            f"allow {least:.2g} or more, or give more --calibration samples"
        )
    return (
        f"no smaller model that was tried surely lost at most {limit:g} points; "
        "more --calibration samples make it surer"
    )
