"""What a measured allocation goes by: curves of single groups, and a trial of all cuts together.

Curves add up what single groups lose. Where a chain is cut down to a few channels in one place they do not
see that nothing gets through there, so an allocation is tried against an even one before it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.data import MemorySource, Source, split_source
from coprune.plan import GroupDecision
from coprune.recovery import kept_outputs, least_squares
from coprune.surgery import cut
from coprune.tracing.forward import Inputs, logits_of, moved

BETTER = 0.9
"""An even allocation is taken when it diverges less than so much of the measured one: less is noise."""

_LEARNING, _JUDGING = 128, 256
_ROWS = 2_500  # of a regression: a tenth of what recovery takes
_BATCH = 125


@dataclass(frozen=True)
class Measured:
    """What a measured allocation goes by.

    Attributes:
        curves: group → ``[U + 1]``, what is lost when it alone keeps k units.
        trial: cuts, recovers and judges.
    """

    curves: Mapping[str, Tensor]
    trial: Trial


@dataclass(frozen=True)
class Trial:
    """How far a network is from the unpruned one after all cuts and least squares on a few samples.

    Attributes:
        model: unpruned.
        example: one input to trace with.
        source: calibration samples; labels are not read.
        seed: which samples judge.
        device: where to compute.
    """

    model: nn.Module
    example: Inputs
    source: Source
    seed: int
    device: str

    def divergence(self, decisions: Sequence[GroupDecision]) -> float:
        """KL divergence (nats) of the prediction on samples that were not solved on.

        Raises:
            UserError: least squares cannot follow the network.
        """
        learning, judging = self._parts
        pruned = cut(self.model, tuple(decisions), self.example)
        least_squares(
            pruned,
            self.model,
            learning,
            kept=kept_outputs(self.model, decisions),
            seed=self.seed,
            rows=_ROWS,
            device=self.device,
        )
        found = self._log_shares(pruned, judging)
        self.model.cpu()
        return float(F.kl_div(found, self._wanted, log_target=True, reduction="batchmean"))

    @cached_property
    def _parts(self) -> tuple[MemorySource, MemorySource]:
        shares = tuple(min(0.5, count / len(self.source)) for count in (_LEARNING, _JUDGING))
        learning, judging = split_source(self.source, shares, seed=self.seed)
        return learning, judging if len(judging) else learning

    @cached_property
    def _wanted(self) -> Tensor:
        return self._log_shares(self.model, self._parts[1])

    @torch.no_grad()
    def _log_shares(self, model: nn.Module, source: MemorySource) -> Tensor:
        """``[N, C]`` float64."""
        model.to(self.device).eval()
        parts = [logits_of(model, moved(x, self.device)) for x, _ in source.batches(_BATCH)]
        return torch.cat(parts).double().log_softmax(1).cpu()
