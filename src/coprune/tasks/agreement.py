"""How much a pruned network says what the unpruned one says: the figure where there are no targets.

Its targets are the unpruned network's outputs for the same samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from coprune.tasks.divergence import Divergence
from coprune.tasks.metrics import Metric
from coprune.tasks.outputs import Cells, Outputs

_CHANNELS = 128
"""Of a tensor, that are looked at for R²; of more, so many are drawn."""
_LEAST_VARIANCE = 0.01
"""Of a channel, as a share of its tensor's mean one: what hardly varies is not blown up."""


def agreement(divergence: Divergence) -> Metric:
    """By what outputs mean.

    ``softmax``: places with the same most likely class; ``sigmoid``: labels answered alike; ``cosine``: mean
    cosine; ``gaussian``: R², the share of the unpruned outputs' variance that stays, each channel in units of
    its own spread.
    """

    def sums(outputs: Outputs, unpruned: Outputs) -> Tensor:
        pairs = list(zip(outputs.cells(divergence.axis), unpruned.cells(divergence.axis), strict=True))
        if divergence.kind == "gaussian":
            return torch.cat([_moments(*pair) for pair in pairs], 1)
        return torch.stack([_sums(divergence.kind_of(pair[0].values), *pair) for pair in pairs]).sum(0)

    if divergence.kind == "gaussian":
        return Metric("r2", sums=sums, finish=_stays, reads_targets=False)
    if divergence.kind == "cosine":
        return Metric("cosine", sums=sums, reads_targets=False)
    return Metric("agreement", unit="%", sums=sums, reads_targets=False)


def _sums(kind: str, found: Cells, wanted: Cells) -> Tensor:
    """``[N, 2]`` float64: the part that agrees and the whole."""
    ours, theirs = found.values.double(), wanted.values.double().to(found.values.device)
    if kind == "softmax":
        part = (ours.argmax(2) == theirs.argmax(2)).double()
    elif kind == "sigmoid":
        part = ((ours > 0) == (theirs > 0)).double().mean(2)
    else:
        part = F.cosine_similarity(ours, theirs, dim=2)
    counts = found.count[:, 0].double()
    return torch.stack([(found.mean(part) * counts).cpu(), counts.cpu()], 1)


def _moments(found: Cells, wanted: Cells) -> Tensor:
    """Places, and of every channel squared errors, values and their squares: ``[N, 1 + 3 * 128]`` float64.

    Of fewer channels the rest is 0.
    """
    ours, theirs = found.values.double(), wanted.values.double().to(found.values.device)
    channels = ours.shape[2]
    if channels > _CHANNELS:
        drawn = torch.randperm(channels, generator=torch.Generator().manual_seed(0))[:_CHANNELS]
        ours, theirs = (t[..., drawn.sort().values.to(t.device)] for t in (ours, theirs))
    weight = torch.ones_like(ours[..., :1]) if found.weight is None else found.weight.unsqueeze(2).to(ours)
    parts = [((t * weight).sum(1)) for t in ((ours - theirs).square(), theirs, theirs.square())]
    parts = [F.pad(t, (0, _CHANNELS - t.shape[1])) for t in parts]
    return torch.cat([weight.sum(1), *parts], 1).cpu()


def _stays(sums: Tensor) -> Tensor:
    """R² of :func:`_moments` of tensors side by side, ``[…, tensors * (1 + 3 * 128)]`` → ``[…]``."""
    each = sums.unflatten(-1, (-1, 1 + 3 * _CHANNELS))
    count = each[..., :1].clamp_min(1)
    error, total, square = each[..., 1:].chunk(3, -1)
    variance = (square / count - (total / count).square()).clamp_min(0)
    there = (variance > 0).sum(-1, keepdim=True).clamp_min(1)
    least = _LEAST_VARIANCE * variance.sum(-1, keepdim=True) / there
    unit = variance.maximum(least).clamp_min(1e-12)
    lost, whole = ((part / unit * count).sum((-2, -1)) for part in (error / count, variance))
    return (1 - lost / whole.clamp_min(1e-12)).clamp_min(-1e9)
