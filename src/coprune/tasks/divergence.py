"""How far the outputs of two networks are apart, and what an error of an output costs: by what outputs mean.

A divergence has three forms of one model of the outputs (a class drawn from a softmax, independent yes or no,
a number with noise, a direction): a loss at outputs drawn from the model itself, whose squared gradients are
its Fisher information; a distance of every sample; and the loss of a student that learns from a teacher. None
of them reads a label.

Shapes: see :mod:`coprune.tasks.outputs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from coprune.tasks.outputs import Cells, Outputs

Seen = Outputs | tuple[Cells, ...]
"""Outputs, or what is looked at of them."""

Kind = Literal["softmax", "sigmoid", "gaussian", "cosine"]

_LEAST_SPREAD = 0.01
"""Of a channel's variance, as a share of the mean one: what hardly varies is not blown up."""


@dataclass(frozen=True)
class Divergence:
    """What outputs mean, as a distribution.

    Attributes:
        kind: ``softmax``, one of ``C`` classes at every place; ``sigmoid``, each channel yes or no;
            ``gaussian``, numbers, each channel in units of its own spread; ``cosine``, directions of the
            ``C`` features.
        axis: where tensors of more than two axes have their channels: 1 (maps), or -1 (tokens).
    """

    kind: Kind
    axis: int = 1

    def drawn_loss(self, outputs: Outputs, generator: torch.Generator) -> Tensor:
        """Minus the log-likelihood of outputs that are drawn from the model's own, summed over samples.

        The mean of its squared gradients is the Fisher information (Martens 2020, arXiv 1412.1193, §5), not
        the empirical one. Of a sample's places the mean counts.

        Args:
            outputs: with gradients.
            generator: on the CPU.
        """
        return torch.stack([self._drawn(cells, generator) for cells in outputs.cells(self.axis)]).sum()

    def _drawn(self, cells: Cells, generator: torch.Generator) -> Tensor:
        values = cells.values
        n, places, channels = values.shape
        if self.kind == "softmax":
            shares = values.detach().softmax(2).cpu().flatten(0, 1)
            drawn = torch.multinomial(shares, 1, generator=generator)[:, 0].to(values.device)
            each = F.cross_entropy(values.flatten(0, 1), drawn, reduction="none").view(n, places)
        elif self.kind == "sigmoid":
            shares = values.detach().sigmoid().cpu()
            drawn = torch.bernoulli(shares, generator=generator).to(values)
            each = F.binary_cross_entropy_with_logits(values, drawn, reduction="none").sum(2)
        else:
            noise = torch.randn(values.shape, generator=generator).to(values)
            unit = F.normalize(values, dim=2) if self.kind == "cosine" else values / _spread(values)
            each = (unit * noise).sum(2) / (1 if self.kind == "cosine" else channels**0.5)
        # Draws are independent, so squared gradients add up over places; a distance is their mean.
        return cells.total(each / cells.count.sqrt()) if places > 1 else each.sum()

    def cells(self, outputs: Outputs) -> tuple[Cells, ...]:
        """What is looked at of outputs, to be kept."""
        return tuple(outputs.cells(self.axis))

    def distance(self, found: Outputs, wanted: Seen) -> Tensor:
        """Of every sample, ``[N]`` float64: the mean over its places, summed over the tensors.

        ``softmax`` and ``sigmoid``: KL(wanted ‖ found) in nats; ``gaussian``: half the squared error in units
        of the wanted spread; ``cosine``: 1 − cos.
        """
        return torch.stack(
            [a.mean(self._apart(a.values.double(), b.values.double())) for a, b in self._pairs(found, wanted)]
        ).sum(0)

    def taught(self, found: Outputs, wanted: Seen, *, temperature: float = 1.0) -> Tensor:
        """Loss of a student that learns from a teacher's outputs: the mean distance of its samples.

        Softmax outputs are softened by the temperature and the loss taken times its square (Hinton et al.
        2015, arXiv 1503.02531).
        """
        t = temperature if self.kind in ("softmax", "sigmoid") else 1.0
        parts = []
        for a, b in self._pairs(found, wanted):
            if self.kind == "softmax" and a.weight is None:
                rows = (cells.values.flatten(0, 1) / t for cells in (a, b))
                ours, theirs = (r.log_softmax(1) for r in rows)
                parts.append(F.kl_div(ours, theirs, reduction="batchmean", log_target=True))
            else:
                parts.append(a.mean(self._apart(a.values / t, b.values / t)).mean())
        return torch.stack(parts).sum() * t * t

    def _pairs(self, found: Outputs, wanted: Seen) -> Iterator[tuple[Cells, Cells]]:
        kept = self.cells(wanted) if isinstance(wanted, Outputs) else wanted
        yield from zip(self.cells(found), kept, strict=True)

    def _apart(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Of every place, ``[N, P]``, of values ``[N, P, C]``."""
        if self.kind == "softmax":
            shares = wanted.log_softmax(2)
            return F.kl_div(found.log_softmax(2), shares, reduction="none", log_target=True).sum(2)
        if self.kind == "sigmoid":
            yes = wanted.sigmoid()
            lost = F.binary_cross_entropy_with_logits(found, yes, reduction="none")
            return (lost - F.binary_cross_entropy_with_logits(wanted, yes, reduction="none")).sum(2)
        if self.kind == "cosine":
            return 1 - F.cosine_similarity(found, wanted, dim=2)
        return ((found - wanted) / _spread(wanted)).square().mean(2) / 2


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of every channel over samples and places, ``[C]``, of values ``[N, P, C]``."""
    rows = values.detach().flatten(0, 1)
    variance = rows.var(0, correction=0)
    if len(rows) < 2 or not bool(variance.any()):  # a single number: in units of its own size
        variance = rows.square().mean(0)
    return variance.clamp_min(_LEAST_SPREAD * float(variance.mean())).clamp_min(1e-12).sqrt()
