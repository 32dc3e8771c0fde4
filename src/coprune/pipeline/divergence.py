"""What a measured allocation goes by: curves of single groups, and how far all cuts together lead.

Curves add up what single groups lose. Where a chain is cut down to a few channels in one place they do not
see that nothing gets through there, so an allocation is tried against a uniform one before it is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from coprune.budget.choice_curves import READS, curved
from coprune.budget.decide import Choices
from coprune.budget.sensitivity_curves import Effort, effort_for, measured_curves
from coprune.budget.validation import Measured
from coprune.data import MemorySource, Source, split_source
from coprune.methods.base import Method
from coprune.options import Options
from coprune.pipeline.context import Context
from coprune.plan import GroupDecision
from coprune.recovery import Pair, kept_outputs, least_squares
from coprune.statistics import Profile, Statistic
from coprune.tracing.forward import copied, moved


def statistics_for(method: Method, options: Options, allocation: str) -> tuple[Statistic, ...]:
    """What a method reads, and what the measured allocation does of a choice that does not know its loss."""
    own = method.needs(options)
    return own if allocation != "measured" or method.allocation == "measured" else (*own, READS)


def measured_for(context: Context, choices: Choices, allocation: str, profile: Profile) -> Measured | None:
    """What the measured allocation goes by; None for the other allocations.

    Args:
        context: of the run.
        choices: what the method says; one that chooses from all groups together shares out by itself.
        allocation: see :func:`coprune.budget.decide.counts`.
        profile: with :func:`statistics_for` that allocation.
    """
    if allocation != "measured" or not isinstance(choices, Sequence):
        return None
    curves = measured_curves(
        context.model,
        curved(choices, profile),
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
        least_squares(pair, learning, seed=context.seed, rows=effort_of(context).rows)
        found = mean_distance(context, pruned, judging)
        context.model.cpu()
        return found

    @cached_property
    def _parts(self) -> tuple[MemorySource, MemorySource]:
        source, effort = self.context.learning, effort_of(self.context)
        shares = tuple(min(0.5, count / len(source)) for count in (effort.learning, effort.judging))
        learning, judging = split_source(source, shares, seed=self.context.seed)
        return learning, judging if len(judging) else learning


@torch.no_grad()
def mean_distance(context: Context, model: nn.Module, source: Source) -> float:
    """Mean divergence of a network's outputs from the unpruned one's; batch by batch, so none are kept."""
    device, task = context.device, context.task
    networks = [m.to(device).eval() for m in (model, context.model)]
    total, count = 0.0, 0
    for inputs, _ in source.batches(min(effort_of(context).batch, context.pass_size)):
        x = moved(inputs, device)
        found, wanted = (task.outputs(network, copied(x)) for network in networks)
        distances = task.divergence.distance(found, wanted, whole=True)
        total, count = total + float(distances.sum()), count + len(distances)
    return total / count
