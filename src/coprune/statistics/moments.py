"""Class-conditional means and variances, streamed, exact and mergeable.

CoSeP (arXiv 2505.13225) and GB-AFS (10.1186/s40537-024-00934-5) describe a unit by the mean and the
variance of its activation in every class. Accumulated as (count, mean, M2) in float64 and merged by
Chan, Golub & LeVeque (1983, "Algorithms for computing the sample variance"), so that any split of
the samples gives what one pass gives.

Shapes: ``N`` samples of a batch, ``U`` units, ``G`` cells of the pixel grid, ``C`` classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.distributed.collectives import Parts


@dataclass(frozen=True)
class Moments:
    """Moments of a group's activations per class.

    Attributes:
        count: samples of each class, ``[C]`` float64.
        mean: ``[C, U, G]`` float64.
        m2: sum of squared deviations from the mean, ``[C, U, G]`` float64.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    @property
    def variance(self) -> Tensor:
        """Sample variance ``M2 / (n − 1)``, ``[C, U, G]``; 0 for a class with one sample."""
        return self.m2 / (self.count - 1).clamp_min(1).view(-1, 1, 1)

    @staticmethod
    def none(classes: int, shape: Sequence[int], *, device: torch.device | str = "cpu") -> Moments:
        """Of no samples: ``shape`` is ``[U, G]``."""
        each = ((classes, *rest) for rest in ((), shape, shape))
        return Moments(*(torch.zeros(whole, dtype=torch.float64, device=device) for whole in each))

    def add_(self, other: Moments, index: Tensor) -> None:
        """Take in, in place, the moments of other samples of some of the classes.

        Args:
            other: of ``[c]`` classes.
            index: which classes these are, ``[c]`` int64, sorted and unique.
        """
        before = (self.count, self.mean, self.m2)
        both = Moments(*(t.index_select(0, index) for t in before)).merge(other)
        for mine, found in zip(before, (both.count, both.mean, both.m2), strict=True):
            mine.index_copy_(0, index, found)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of samples together; see :func:`merge`."""
        return Moments(**merge(vars(self), vars(other)))

    @staticmethod
    def named(tensors: Mapping[str, Tensor], name: str) -> Moments:
        """Those stored as ``name/count``, ``name/mean`` and ``name/m2``."""
        return Moments(*(tensors[f"{name}/{part}"] for part in ("count", "mean", "m2")))


def merge(a: Parts, b: Parts) -> dict[str, Tensor]:
    """What was gathered of two sets of samples, together (Chan et al. 1983, eq. 2.1).

    ``mean`` and ``m2``, if there, are merged as moments of ``count`` samples; all other parts are sums.

    Args:
        a: ``count`` ``[…]``, ``mean`` ``[…, D]``, ``m2`` ``[…, D]`` or, of outer products, ``[…, D, D]``;
            ``…`` are classes, or nothing.
        b: the same parts of other samples.
    """
    found = {key: a[key] + b[key] for key in a if key not in ("mean", "m2")}
    if "mean" in a:
        delta = b["mean"] - a["mean"]
        share = (b["count"] / found["count"].clamp_min(1)).view(-1, *[1] * (delta.ndim - 1))
        weight = share * a["count"].view(share.shape)
        outer = a["m2"].ndim > delta.ndim
        square = weight * delta.outer(delta) if outer else weight * delta.square()
        found["mean"] = a["mean"] + delta * share
        found["m2"] = a["m2"] + b["m2"] + square
    return found


def to_grid(activation: Tensor, *, units: int, grid: int | None, last: bool = False) -> Tensor:
    """Bring an activation to one row of cells a unit.

    Args:
        activation: ``[N, U, H, W]`` of a convolution (``[N, U, L]`` of signals, ``[N, U, T, H, W]`` of
            volumes); of a linear layer ``[N, U·span]`` (a flattened map, read unit by unit), ``[N, U]`` or,
            with ``last``, ``[N, T, U]`` (tokens are its cells).
        units: ``U``.
        grid: average pixels to ``grid`` cells along every axis; None keeps every pixel. Tokens, and
            flattened maps that are not square, have one cell unless every one is kept.
        last: whether units lie on the last axis (linear layers) rather than behind the samples.

    Returns:
        ``[N, U, G]`` in the dtype of the activation; averages of half-precision ones in float32.
    """
    if grid is not None and activation.dtype in (torch.float16, torch.bfloat16):
        activation = activation.float()
    sides: tuple[int, ...] = ()
    if activation.ndim > 2 and not last:
        maps, sides = activation, activation.shape[2:]
    elif activation.ndim > 2:
        maps = activation.flatten(1, -2).transpose(1, 2)  # [N, U, T]
    else:
        maps = activation.reshape(len(activation), units, -1)
        side = math.isqrt(maps.shape[2])
        if side * side == maps.shape[2]:
            maps, sides = maps.unflatten(2, (side, side)), (side, side)
    if grid == 1 or (grid is not None and not sides):
        return maps.flatten(2).mean(2, keepdim=True)
    if grid is not None and max(sides) > grid:
        pooling = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[maps.ndim - 3]
        maps = pooling(tuple(min(grid, side) for side in sides))(maps)
    return maps.flatten(2)


BLOCK_VALUES = 1 << 18
"""Values worked on at a time: 2 MB in float64, so that a block stays in the processor's cache while
it is shifted, squared and summed (three times faster than whole layers)."""


def batch_moments(values: Tensor, labels: Tensor, *, classes: int) -> Moments:
    """Moments of one batch.

    Deviations are taken from the batch's overall mean first, then corrected to the class means, so
    that one matrix product each gives sums and squares without cancellation.

    Args:
        values: ``[N, U, G]``, any float dtype.
        labels: ``[N]`` int64 below ``classes``.
        classes: ``C``.
    """
    n, units, cells = values.shape
    members = F.one_hot(labels, classes).to(torch.float64).T.contiguous()  # [C, N]
    count = members.sum(1)
    safe = count.clamp_min(1).unsqueeze(1)
    mean = torch.empty(classes, units * cells, dtype=torch.float64, device=values.device)
    m2 = torch.empty_like(mean)
    width = max(1, BLOCK_VALUES // max(1, n))
    blocks = zip(values.reshape(n, -1).split(width, 1), mean.split(width, 1), m2.split(width, 1), strict=True)
    for part, mean_part, m2_part in blocks:
        x = part.to(torch.float64, copy=True)
        shift = x.mean(0)
        x -= shift
        offset = (members @ x) / safe  # class means, seen from the shift
        mean_part.copy_(offset + shift)
        m2_part.copy_(members @ x.square_() - safe * offset.square())
    mean.masked_fill_((count == 0).unsqueeze(1), 0)
    shape = (classes, units, cells)
    return Moments(count, mean.view(shape), m2.clamp_min_(0).view(shape))
