"""How far the outputs of two networks are apart, and what an error of an output costs: by what outputs mean.

A divergence has three forms of one model of the outputs (a class drawn from a softmax, independent yes or no,
a number with noise, a direction): a loss at outputs drawn from the model itself, whose squared gradients are
its Fisher information; a distance of every sample; and the loss of a student that learns from a teacher. None
of them reads a label.

Shapes: see :mod:`coprune.tasks.outputs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from coprune.tasks.outputs import MOST, Cells, Outputs

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
        spreads: standard deviations ``[C]`` of the channels of every tensor; empty, each batch's own.
    """

    kind: Kind
    axis: int = 1
    spreads: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)

    def known(self, batches: Iterable[Outputs]) -> Divergence:
        """With the spreads of the unpruned model's outputs, so that no figure depends on batches."""
        sums: list[Tensor] = []
        for outputs in batches:
            rows = [one.values.flatten(0, 1).double() for one in outputs.cells(self.axis)]
            found = [torch.stack([torch.ones_like(r[0]) * len(r), r.sum(0), r.square().sum(0)]) for r in rows]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        return replace(self, spreads=tuple(_root(*part) for part in sums))

    def drawn_loss(self, outputs: Outputs, generator: torch.Generator) -> Tensor:
        """Minus the log-likelihood of outputs that are drawn from the model's own, summed over samples.

        The mean of its squared gradients is the Fisher information (Martens 2020, arXiv 1412.1193, §5), not
        the empirical one. Of a sample's places the mean counts.

        Args:
            outputs: with gradients.
            generator: on the CPU.
        """
        cells = enumerate(outputs.cells(self.axis))
        return torch.stack([self._drawn(number, one, generator) for number, one in cells]).sum()

    def _drawn(self, number: int, cells: Cells, generator: torch.Generator) -> Tensor:
        values = cells.values
        n, places, channels = values.shape
        kind = self.kind_of(values)
        if kind == "softmax":
            shares = values.detach().softmax(2).cpu().flatten(0, 1)
            drawn = torch.multinomial(shares, 1, generator=generator)[:, 0].to(values.device)
            each = F.cross_entropy(values.flatten(0, 1), drawn, reduction="none").view(n, places)
        elif kind == "sigmoid":
            shares = values.detach().sigmoid().cpu()
            drawn = torch.bernoulli(shares, generator=generator).to(values)
            each = F.binary_cross_entropy_with_logits(values, drawn, reduction="none").sum(2)
        else:
            noise = torch.randn(values.shape, generator=generator).to(values)
            unit = F.normalize(values, dim=2) if kind == "cosine" else values / self._unit(number, values)
            each = (unit * noise).sum(2) / (1 if kind == "cosine" else channels**0.5)
        # Draws are independent, so squared gradients add up over places; a distance is their mean.
        return cells.total(each / cells.count.sqrt()) if places > 1 else each.sum()

    def kind_of(self, values: Tensor) -> Kind:
        """Of values ``[N, P, C]``: one logit by itself is a yes or no."""
        return "sigmoid" if self.kind == "softmax" and values.shape[2] == 1 else self.kind

    def cells(self, outputs: Outputs, *, whole: bool = False) -> tuple[Cells, ...]:
        """What is looked at of outputs, to be kept."""
        return tuple(outputs.cells(self.axis, whole=whole))

    def distance(self, found: Outputs, wanted: Seen, *, whole: bool = False) -> Tensor:
        """Of every sample, ``[N]`` float64: the mean over its places, summed over the tensors.

        With ``whole`` over all of them, however many.

        ``softmax`` and ``sigmoid``: KL(wanted ‖ found) in nats; ``gaussian``: half the squared error in units
        of the wanted spread; ``cosine``: 1 − cos.
        """
        each = []
        for number, *both in self._pairs(found, wanted, whole=whole):
            values = ((a, a.values.double(), b.values.double()) for a, b in self._in_parts(*both))
            each.append(torch.cat([cells.mean(self._apart(number, *pair)) for cells, *pair in values]))
        return torch.stack(each).sum(0)

    def _in_parts(self, found: Cells, wanted: Cells) -> Iterator[tuple[Cells, Cells]]:
        """So many samples at a time that float64 values, of a vocabulary each, stay in the cache.

        Numbers may be in units of their spread over all samples, so these stay together.
        """
        count, *sizes = found.values.shape
        each = count if self.kind == "gaussian" else max(1, MOST // math.prod(sizes))
        return zip(found.split(each), wanted.split(each), strict=True)

    def taught(self, found: Outputs, wanted: Seen, *, temperature: float = 1.0) -> Tensor:
        """Loss of a student that learns from a teacher's outputs: the mean distance of its samples.

        Softmax outputs are softened by the temperature and the loss taken times its square (Hinton et al.
        2015, arXiv 1503.02531). All places are learned from: their outputs are there anyway.
        """
        t = temperature if self.kind in ("softmax", "sigmoid") else 1.0
        parts = []
        for number, a, b in self._pairs(found, wanted, whole=True):
            if self.kind_of(a.values) == "softmax" and a.weight is None:
                rows = (cells.values.flatten(0, 1) / t for cells in (a, b))
                ours, theirs = (r.log_softmax(1) for r in rows)
                parts.append(F.kl_div(ours, theirs, reduction="batchmean", log_target=True))
            else:
                parts.append(a.mean(self._apart(number, a.values / t, b.values / t)).mean())
        return torch.stack(parts).sum() * t * t

    def _pairs(self, found: Outputs, wanted: Seen, *, whole: bool) -> Iterator[tuple[int, Cells, Cells]]:
        kept = self.cells(wanted, whole=whole) if isinstance(wanted, Outputs) else wanted
        for number, pair in enumerate(zip(self.cells(found, whole=whole), kept, strict=True)):
            yield number, *pair

    def _unit(self, number: int, values: Tensor) -> Tensor:
        """Spread of the channels of a tensor, ``[C]``."""
        known = self.spreads[number].to(values) if self.spreads else _spread(values)
        return known if len(known) == values.shape[2] else _spread(values)

    def _apart(self, number: int, found: Tensor, wanted: Tensor) -> Tensor:
        """Of every place, ``[N, P]``, of values ``[N, P, C]``."""
        kind = self.kind_of(wanted)
        if kind == "softmax":
            shares = wanted.log_softmax(2)
            return F.kl_div(found.log_softmax(2), shares, reduction="none", log_target=True).sum(2)
        if kind == "sigmoid":
            yes = wanted.sigmoid()
            lost = F.binary_cross_entropy_with_logits(found, yes, reduction="none")
            return (lost - F.binary_cross_entropy_with_logits(wanted, yes, reduction="none")).sum(2)
        if kind == "cosine":
            return 1 - F.cosine_similarity(found, wanted, dim=2)
        return ((found - wanted) / self._unit(number, wanted)).square().mean(2) / 2


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of every channel over samples and places, ``[C]``, of values ``[N, P, C]``."""
    rows = values.detach().flatten(0, 1)
    return _unit(rows.var(0, correction=0), rows.square().mean(0), len(rows))


def _root(count: Tensor, total: Tensor, square: Tensor) -> Tensor:
    """The same of sums over samples and places, ``[C]`` each."""
    variance = (square / count - (total / count).square()).clamp_min(0)
    return _unit(variance, square / count, int(count[0]))


def _unit(variance: Tensor, size: Tensor, count: int) -> Tensor:
    if count < 2 or not bool(variance.any()):  # a single number: in units of its own size
        variance = size
    return variance.clamp_min(_LEAST_SPREAD * float(variance.mean())).clamp_min(1e-12).sqrt()
