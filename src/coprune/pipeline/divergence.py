"""From budgets to decisions; what a measured allocation goes by: curves of groups, and a trial of all cuts.

Curves add up what single groups lose. Where a chain is cut down to a few channels in one place they do not
see that nothing gets through there, so an allocation is tried against a uniform one before it is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from coprune.budget.choice_curves import READS, curved
from coprune.budget.decide import Choices, decide
from coprune.budget.request import Budget
from coprune.budget.sensitivity_curves import Effort, effort_for, measured_curves
from coprune.budget.validation import Measured
from coprune.data import MemorySource, split_source
from coprune.methods.base import Method
from coprune.options import Options
from coprune.pipeline.context import Context
from coprune.plan import GroupDecision
from coprune.recovery import Pair, kept_outputs, least_squares
from coprune.recovery.reconstruction import mean_divergence
from coprune.statistics import Profile, Statistic
from coprune.tracing.forward import moved


def statistics_for(method: Method, options: Options, allocation: str) -> tuple[Statistic, ...]:
    """What a method reads, and what the measured allocation does of a choice that does not know its loss."""
    own = method.needs(options)
    return own if allocation != "measured" or method.allocation == "measured" else (*own, READS)


@dataclass(frozen=True)
class Choosing:
    """From budgets to decisions, with all that budgets do not say.

    Attributes:
        context: of the run.
        choices: what the method says; one that chooses from all groups together shares out by itself.
        profile: with :func:`statistics_for` that allocation.
        allocation: see :func:`coprune.budget.decide.counts`.
        round_to: see :func:`coprune.budget.counts.allowed_counts`.
    """

    context: Context
    choices: Choices
    profile: Profile
    allocation: str
    round_to: int

    def decide(self, budget: Budget, *, why: str | None = None) -> tuple[GroupDecision, ...]:
        """See :func:`coprune.budget.decide.decide`."""
        return decide(
            budget,
            self.context.cost,
            self.choices,
            allocation=self.allocation,
            measured=self._measured,
            round_to=self.round_to,
            why=why,
        )

    @cached_property
    def _measured(self) -> Measured | None:
        """What the measured allocation goes by; None for the other allocations."""
        context = self.context
        if self.allocation != "measured" or not isinstance(self.choices, Sequence):
            return None
        curves = measured_curves(
            context.model,
            curved(self.choices, self.profile),
            context.learning,
            task=context.task,
            device=context.device,
            effort=effort_of(context),
        )
        context.model.cpu()
        return Measured(curves, Divergence(context).of, least=min(effort_of(context).levels))


def effort_of(context: Context) -> Effort:
    """How much to measure on such samples as a run learns on."""
    first, _ = next(iter(context.learning.batches(1)))
    return effort_for(first, context.task).times(context.effort)


@dataclass(frozen=True)
class Divergence:
    """How far a network is from the unpruned one after all cuts and least squares on a few samples."""

    context: Context

    def of(self, decisions: Sequence[GroupDecision]) -> float:
        """Mean divergence of the outputs on samples that were not solved on.

        Raises:
            UserError: least squares cannot follow the network.
        """
        context, (learning, judging) = self.context, self._parts
        pruned = context.cut(decisions)
        kept = kept_outputs(context.model, decisions)
        pair = Pair(pruned, context.model, kept, decisions, context.device, context.task)
        effort = effort_of(context)
        least_squares(pair, learning, seed=context.seed, rows=effort.rows)
        # Batch by batch, so that no outputs are kept.
        batches = judging.batches(min(effort.batch, context.pass_size))
        found = mean_divergence(pair, (moved(inputs, context.device) for inputs, _ in batches))
        context.model.cpu()
        return found

    @cached_property
    def _parts(self) -> tuple[MemorySource, MemorySource]:
        source, effort = self.context.learning, effort_of(self.context)
        shares = tuple(min(0.5, count / len(source)) for count in (effort.learning, effort.judging))
        learning, judging = split_source(source, shares, seed=self.context.seed)
        return learning, judging if len(judging) else learning
