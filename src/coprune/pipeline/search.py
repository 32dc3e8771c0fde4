"""Budgets that are found by trying: models are cut, recovered and judged (:mod:`coprune.budget.search`).

Recovery sees one part of the calibration samples, other samples judge.
"""

from __future__ import annotations

from dataclasses import dataclass

from coprune.budget.counts import Budget, least_counts
from coprune.budget.decide import kept_ratio, spendable
from coprune.budget.search import KNEE_SHARES, Probe, search_drop, search_knee, search_latency
from coprune.distributed.collectives import on_first
from coprune.documents import Value
from coprune.errors import UserError, setting
from coprune.measure import Score, median_ms
from coprune.measure.intervals import Loss, least_provable
from coprune.pipeline.divergence import Choosing
from coprune.pipeline.pruning import Pruning
from coprune.plan import GroupDecision
from coprune.result import Code, Note, Noted

Decisions = tuple[GroupDecision, ...]


class Selection(Value):
    """Which units stay.

    Attributes:
        decisions: one a group.
        probes: every model that was tried, of a search that judges accuracy.
        notes: what a user should know.
        allowed: the largest loss, in the metric's unit.
    """

    decisions: Decisions
    probes: tuple[Probe, ...] | None = None
    notes: tuple[Noted, ...] = ()
    allowed: float | None = None

    @staticmethod
    def of(
        decisions: Decisions, probes: tuple[Probe, ...] | None, *notes: str, allowed: float | None = None
    ) -> Selection:
        """What came of a search, with notes in words."""
        coded = tuple(Note(Code.SEARCH, note) for note in notes)
        return Selection(decisions=decisions, probes=probes, notes=coded, allowed=allowed)


@dataclass(frozen=True)
class Objective:
    """Tries models of any size.

    Attributes:
        run: what was asked, and what judges.
        choosing: what the method says.
    """

    run: Pruning
    choosing: Choosing

    def search(self) -> Selection:
        """The model that keeps the budget.

        Raises:
            UserError: a latency that no model has.
        """
        settings, context, judging = self.run.settings, self.run.context, self.run.judging
        budget, cost = settings.budget, spendable(context.cost, self.choosing.choices)
        least = cost.ratio(least_counts(cost.sizes, settings.round_to))
        if budget.latency_ms is not None:
            decisions, ms, smallest = search_latency(
                least, budget.latency_ms, decide=self.decided, time_ms=self.time_ms
            )
            if ms > budget.latency_ms:
                raise UserError(
                    f"latency_ms={budget.latency_ms:g} cannot be reached: one unit in every group still "
                    f"takes {smallest:.3g} ms here; ask for at least that much"
                )
            return Selection.of(decisions, None, f"{ms:.3g} ms a sample when it was chosen")
        base, metric = judging.score(context.model), judging.task.judged

        def judge(decisions: Decisions) -> tuple[float, Loss]:
            score = self.judge(decisions)
            return score.value, judging.lost(base, score)

        if budget.max_drop is not None:
            limit = metric.allowed(budget.max_drop, base.value)
            found = search_drop(least, base.value, limit, decide=self.decided, judge=judge)
            return Selection.of(found.decisions, found.probes, allowed=limit)
        found, rule = search_knee(
            least, base.value, decide=self.decided, judge=judge, higher_is_better=metric.higher_is_better
        )
        notes = [f"the knee of recovered {metric.what} over MACs: {rule}"]
        if least > max(KNEE_SHARES):
            notes.append(f"at most {1 - least:.1%} of the MACs can be removed{context.more}")
        return Selection.of(found.decisions, found.probes, *notes)

    def decided(self, share: float) -> tuple[float, Decisions]:
        """The share of the MACs that is really reached, and the decisions for it."""
        budget = self.run.settings.budget
        why = "the knee of the recovered curve" if budget.empty else f"{budget.words} allows it"
        decisions = self.choosing.decide(Budget(keep_macs=min(1.0, share)), why=why)
        return kept_ratio(self.run.context.cost, decisions), decisions

    def time_ms(self, decisions: Decisions) -> float:
        """Milliseconds of one sample of the cut model."""
        context = self.run.context
        candidate = context.cut(decisions)
        # Decisions follow from it, so all processes must hear the same.
        return on_first(lambda: median_ms(candidate, context.example, device=context.device))

    def judge(self, decisions: Decisions) -> Score:
        """How good the cut and recovered model is on the judging samples."""
        context = self.run.context
        candidate = context.cut(decisions)
        context.recover(candidate, decisions, self.run.settings.recovery)
        return self.run.judging.score(candidate, label="probe")


def why_nothing(run: Pruning, selection: Selection) -> str:
    """Why every unit stayed, for a note."""
    limit, judging = selection.allowed, run.judging
    if selection.probes is None:
        return f"the budget ({run.settings.budget.words}) keeps every unit"
    if limit is None:
        return "at the knee of the recovered curve every unit stays; give --keep-macs or --max-drop"
    kind = "validation" if judging.on == "validation" else setting("calibration_samples")
    metric, samples = judging.task.judged, len(judging.source)
    least = least_provable(samples, z=judging.z) if metric.pairs else 0
    if limit < least:
        return (
            f"{samples:,} judging samples cannot show a loss of at most {limit:g} points; "
            f"allow {least:.2g} or more, or give more {kind} samples"
        )
    return (
        f"no smaller model that was tried surely lost at most {limit:g} {metric.loss_unit}; "
        f"more {kind} samples make it surer"
    )
