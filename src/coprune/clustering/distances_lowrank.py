"""Distances between profiles from low-rank factors of the overlaps: an approximation with a bound.

The overlap of two classes is the inner product of the roots of their densities, so a unit's overlaps of all
classes are a positive semidefinite matrix ``K_u`` with a diagonal of 1, and, the classes being points of a
plane (mean, variance), one whose eigenvalues fall fast. A pivoted Cholesky factorisation (Harbrecht, Peters
& Schneider 2012, 10.1016/j.apnum.2011.10.001) gives ``K_u ≈ F_u F_uᵀ`` from ``r`` of its columns; what is
left is positive semidefinite too, so its norm is at most its trace, which is known. With ``n = ‖·‖²`` and

    ‖K_u − K_v‖² = n(K_u) + n(K_v) − 2 ‖F_uᵀ F_v‖²

a pair of units costs ``C·r²`` instead of ``C²/2``. Constant rows are taken out first (the classes' mean
overlaps, compared on their own) and what is left is turned to its principal axes and cut off again; what
is cut off is added to the bound.

Shapes: ``C`` classes, ``U`` units, ``G`` grid cells, ``r`` columns of a factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor

from coprune.clustering.distances import Gaussians, refined
from coprune.statistics.moments import Moments

LARGE = 1 << 40
"""Multiply-adds of the exact way (:func:`coprune.clustering.distances.exact_work`) above which ``auto``
takes a sketch: a group of 1,500 units and 1,000 classes, some ten seconds on two cores."""

MOST = 48
"""Columns of a factor, at most; a unit that needs more has a larger bound."""

_UNITS = 128  # factored at a time
_SAME = 1e-5  # squared distances over the two profiles' size that float32 does not tell from 0


@dataclass(frozen=True)
class Sketch:
    """Approximate distances.

    Attributes:
        distance: ``[U, U]`` float64, symmetric, zero diagonal.
        bound: of the error of any of them, but for the rounding of float32.
        bound_a_pair: the same as JM a class pair and cell, root mean square.
        rank: mean number of columns of a factor.
    """

    distance: Tensor
    bound: float
    bound_a_pair: float
    rank: float


def sketched_distances(
    moments: Moments, *, relative_eps: float, tolerance: float, device: str = "cpu"
) -> Sketch:
    """Euclidean distances between the units' profiles, approximately.

    Args:
        moments: of one group.
        relative_eps: see :func:`coprune.clustering.distances.floor_variance`.
        tolerance: of the distances, as JM a class pair and cell (root mean square; JM is in [0, 2]);
            from 1e-3 on, below which float32 is too coarse.
        device: where to compute.
    """
    classes, units, cells = moments.mean.shape
    seen = Gaussians.of(moments, relative_eps=relative_eps, device=device)
    square = torch.zeros(units, units, dtype=torch.float64, device=device)
    size, error, ranks = (torch.zeros(units, dtype=torch.float64, device=device) for _ in range(3))
    for cell in range(cells):
        parts = [
            _factors(seen.units(some), cell, allowed=tolerance * classes / 4)
            for some in torch.arange(units, device=device).split(_UNITS)
        ]
        means, norm, off, rank = (torch.cat(same) for same in list(zip(*parts, strict=True))[1:])
        most = max(part[0].shape[2] for part in parts)
        factors = torch.cat([F.pad(part[0], (0, most - part[0].shape[2])) for part in parts])
        _add(square, factors, means, norm)
        size += norm
        error += off.square()
        ranks += rank / cells
    square = square.triu_(1)
    square = square + square.T
    near = square <= _SAME * (size.unsqueeze(0) + size.unsqueeze(1))
    near.fill_diagonal_(False)
    square = 2 * square.clamp_min_(0)
    square[near] = 0
    square = refined(square, near, seen)
    bound = math.sqrt(2) * float(error.sqrt().topk(min(2, units)).values.sum())
    values = classes * (classes - 1) / 2 * cells
    return Sketch(square.sqrt().cpu(), bound, bound / math.sqrt(values), float(ranks.mean()))


def _factors(seen: Gaussians, cell: int, *, allowed: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Factors of the overlaps of some units in one cell, whose matrices are off by ``allowed`` at most.

    Half of it is left to the Cholesky factor's rest, half to what is cut off.

    Returns:
        Factors ``F``, ``[U, C, r]`` float32, centred, principal axes, the largest first; class means of the
        overlaps ``[U, C + 1]``, whose distance is the rest of the whole; ``‖FᵀF‖²``, the error's bound, and
        the columns needed, ``[U]`` each.
    """
    factor, rest = _cholesky(
        seen.half[:, cell].T.contiguous(), seen.variance[:, cell].T.contiguous(), allowed=allowed / 2
    )
    classes = factor.shape[1]
    sums = factor.sum(1, dtype=torch.float64).float()  # [U, r]
    rows = (factor @ sums.unsqueeze(2)).squeeze(2).double()  # K 1, [U, C]
    total = rows.sum(1, keepdim=True)
    means = torch.cat([(rows - total / classes) * math.sqrt(2 / classes), total / classes], 1)
    factor = factor - (sums / classes).unsqueeze(1)
    values, axes = torch.linalg.eigh((factor.transpose(1, 2) @ factor).double())
    values, axes = values.flip(1).clamp_min(0), axes.flip(2)
    tail = F.pad(values.square().flip(1).cumsum(1).flip(1), (0, 1))  # what is lost when cut off from here on
    rank = (tail > (allowed / 2) ** 2).sum(1)
    kept = torch.arange(values.shape[1], device=rank.device) < rank.unsqueeze(1)
    turned = (factor @ axes.float()) * kept.unsqueeze(1)
    norm = (values.square() * kept).sum(1)
    cut = tail.gather(1, rank.unsqueeze(1))[:, 0]
    return turned[:, :, : max(1, int(rank.max()))], means, norm, rest + cut.sqrt(), rank


def _cholesky(half: Tensor, variance: Tensor, *, allowed: float) -> tuple[Tensor, Tensor]:
    """Pivoted Cholesky factors ``[U, C, r]`` float32 and the traces ``[U]`` of what they leave."""
    units, classes = half.shape
    root = (variance.sqrt() * math.sqrt(2)).sqrt().float()
    variance = variance.float()
    left = torch.ones_like(root)
    columns = root.new_zeros(units, min(MOST, classes), classes)
    for count in range(columns.shape[1]):
        pivot = left.argmax(1, keepdim=True)
        apart = (variance + variance.gather(1, pivot)).rsqrt_()
        # Means are subtracted in float64, see the exact distances.
        column = torch.sub(half, half.gather(1, pivot)).float().mul_(apart).square_().neg_().exp_()
        column *= root * root.gather(1, pivot) * apart
        done = columns[:, :count]
        column -= (done.gather(2, pivot.unsqueeze(1).expand(-1, count, 1)).transpose(1, 2) @ done).squeeze(1)
        best = left.gather(1, pivot)
        column *= best.clamp_min(1e-30).rsqrt() * (best > 1e-6)
        columns[:, count] = column
        left = (left - column.square()).clamp_min_(0)
        if float(left.sum(1).max()) <= allowed:
            break
    return columns[:, : count + 1].transpose(1, 2), left.sum(1, dtype=torch.float64)


def _add(square: Tensor, factors: Tensor, means: Tensor, norm: Tensor) -> None:
    """Add half the squared distances to the upper half of ``[U, U]``; the lower one is left undefined."""
    units, _, rank = factors.shape
    flat = factors.permute(1, 0, 2).flatten(1).contiguous()  # [C, U·r]
    blocks = [slice(start, start + _UNITS) for start in range(0, units, _UNITS)]
    for here, there in combinations_with_replacement(blocks, 2):
        a, b = (flat[:, part.start * rank : part.stop * rank] for part in (here, there))
        products = (a.T @ b).square_().view(-1, rank, b.shape[1] // rank, rank)
        apart = torch.cdist(means[here], means[there]).square()
        own = norm[here].unsqueeze(1) + norm[there]
        square[here, there] += own - 2 * products.sum((1, 3)).double() + apart
