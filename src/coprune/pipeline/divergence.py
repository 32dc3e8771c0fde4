"""What a measured allocation goes by: curves of single groups, and how far all cuts together lead.

Curves add up what single groups lose. Where a chain is cut down to a few channels in one place they do not
see that nothing gets through there, so an allocation is tried against a uniform one before it is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.budget.decide import Choices
from coprune.budget.sensitivity_curves import measured_curves
from coprune.budget.validation import Measured
from coprune.data import MemorySource, split_source
from coprune.pipeline.context import Context
from coprune.plan import GroupDecision
from coprune.recovery import Pair, kept_outputs, least_squares
from coprune.tracing.forward import logits_of, moved

_LEARNING, _JUDGING = 128, 256
_ROWS = 2_500  # of a regression: a tenth of what recovery takes
_BATCH = 125


def measured_for(context: Context, choices: Choices, allocation: str) -> Measured | None:
    """What the measured allocation goes by; None for the other allocations.

    Args:
        context: of the run.
        choices: what the method says.
        allocation: see :func:`coprune.budget.decide.counts`.
    """
    if allocation != "measured":
        return None
    curves = measured_curves(context.model, choices, context.learning, device=context.device)  # type: ignore[arg-type]
    context.model.cpu()
    return Measured(curves, Divergence(context).of)


@dataclass(frozen=True)
class Divergence:
    """How far a network is from the unpruned one after all cuts and least squares on a few samples."""

    context: Context

    def of(self, decisions: Sequence[GroupDecision]) -> float:
        """KL divergence (nats) of the prediction on samples that were not solved on.

        Raises:
            UserError: least squares cannot follow the network.
        """
        context, (learning, judging) = self.context, self._parts
        pruned = context.cut(decisions)
        kept = kept_outputs(context.model, decisions)
        pair = Pair(pruned, context.model, kept, decisions, context.device)
        least_squares(pair, learning, seed=context.seed, rows=_ROWS)
        found = self._log_shares(pruned, judging)
        context.model.cpu()
        return float(F.kl_div(found, self._wanted, log_target=True, reduction="batchmean"))

    @cached_property
    def _parts(self) -> tuple[MemorySource, MemorySource]:
        source = self.context.learning
        shares = tuple(min(0.5, count / len(source)) for count in (_LEARNING, _JUDGING))
        learning, judging = split_source(source, shares, seed=self.context.seed)
        return learning, judging if len(judging) else learning

    @cached_property
    def _wanted(self) -> Tensor:
        return self._log_shares(self.context.model, self._parts[1])

    @torch.no_grad()
    def _log_shares(self, model: nn.Module, source: MemorySource) -> Tensor:
        """``[N, C]`` float64."""
        device = self.context.device
        model.to(device).eval()
        parts = [logits_of(model, moved(x, device)) for x, _ in source.batches(_BATCH)]
        return torch.cat(parts).double().log_softmax(1).cpu()
