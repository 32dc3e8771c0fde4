"""Distances between the profiles of a group's units, exactly, without ever holding a profile.

How well a unit separates two classes is the Jeffries–Matusita distance of two Gaussians,

    B  = ¼ (μp − μq)² / (σp² + σq²) + ½ ln((σp² + σq²) / (2 σp σq))       Bhattacharyya
    JM = 2 (1 − e^−B)                                                   in [0, 2]

(CoSeP, arXiv 2505.13225, and GB-AFS, 10.1186/s40537-024-00934-5, after Bhattacharyya 1943 and Matusita
1966). A unit's *profile* is its JM over all class pairs and grid cells; the units of a group are compared by
the Euclidean distance of their profiles. With K = e^−B, the overlap of two classes, two units are at the
distance ‖JM_u − JM_v‖ = 2 ‖K_u − K_v‖ over all class pairs and cells, and

    K = √(2 σp σq / (σp² + σq²)) · e^−(μp − μq)² / (4 (σp² + σq²)) :

one reciprocal square root and one exponential a pair and unit; logarithms are needed for neither. Tiles
of classes × classes are added up in the Gram matrix, of which half is computed, and half of the tiles,
since K is symmetric; memory does not depend on the number of pairs.

Shapes: ``C`` classes, ``U`` units, ``G`` grid cells, ``P = C(C−1)/2`` class pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from coprune.statistics.moments import Moments

TILE_VALUES = 1 << 18
"""Overlaps worked out at a time: three buffers of that many stay in the processor's cache."""

SINGLE_WORK = 1 << 35
"""From so many multiply-adds on (``U² · P · G``) the Gram matrix is added up in float32: below, float64
takes seconds at most."""

_ROWS = 1024  # rows multiplied at a time, in as many tiles as they fill: a product of few is slow
_FLUSH = 4  # sets of such rows added up in float32 before they go into the float64 sum
_PANEL = 128  # columns of the Gram matrix computed at a time; what lies left of the diagonal is left out
_SAME = {torch.float64: 1e-12, torch.float32: 2e-3}  # squared distances, over the two profiles' size


@dataclass(frozen=True)
class Gaussians:
    """What a group's units see of the classes: centred means and positive variances, a unit's own scale.

    A profile does not depend on a unit's origin and scale, and both are chosen so that float32 has them.

    Attributes:
        half: half the means, ``[C, G, U]`` float64.
        variance: ``[C, G, U]`` float64.
    """

    half: Tensor
    variance: Tensor

    @staticmethod
    def of(moments: Moments, *, relative_eps: float, device: str = "cpu") -> Gaussians:
        """Of one group; ``relative_eps`` as in :func:`floor_variance`."""
        variance = floor_variance(moments, relative_eps=relative_eps).transpose(1, 2)
        mean = moments.mean.transpose(1, 2)
        scale = variance.mean(0, keepdim=True)
        half = 0.5 * (mean - mean.mean(0, keepdim=True)) / scale.sqrt()
        return Gaussians(half.contiguous().to(device), (variance / scale).contiguous().to(device))

    def units(self, index: Tensor) -> Gaussians:
        """Some of the units."""
        return Gaussians(self.half[..., index].contiguous(), self.variance[..., index].contiguous())


def floor_variance(moments: Moments, *, relative_eps: float) -> Tensor:
    """Class variances that are never 0.

    GB-AFS replaces a variance of 0 by 1e-10. A fixed number means different things to units of
    different scale, so the floor here is relative: ``relative_eps`` times the unit's mean square
    activation (over classes and cells). A unit that is 0 everywhere gets ``relative_eps`` itself;
    its profile is 0 either way.

    Args:
        moments: of one group.
        relative_eps: the floor in units of the mean square.

    Returns:
        ``[C, U, G]`` float64, positive.
    """
    weights = (moments.count / moments.count.sum()).view(-1, 1, 1)
    variance = moments.variance
    square = ((variance + moments.mean.square()) * weights).sum(0).mean(1)  # [U]
    floor = relative_eps * torch.where(square > 0, square, torch.ones_like(square))
    return torch.maximum(variance, floor.view(1, -1, 1))


def exact_work(moments: Moments) -> int:
    """Multiply-adds of the whole Gram matrix, ``U² · P · G``."""
    classes, units, cells = moments.mean.shape
    return units**2 * cells * (classes * (classes - 1) // 2)


def profile_distances(
    moments: Moments, *, relative_eps: float, device: str = "cpu", single: bool | None = None
) -> Tensor:
    """Euclidean distances between the units' profiles.

    Large groups are added up in float32 (differences of means in float64, sums of blocks in float64):
    distances are then right to 1e-4 of themselves, usually 1e-7; units so near each other that float32
    could not tell are compared once more, in float64. Where even there a squared distance is below the
    rounding of the Gram matrix the two units are the same and get exactly 0, since the silhouette leaves
    duplicates out by that.

    Args:
        moments: of one group.
        relative_eps: see :func:`floor_variance`.
        device: where to compute.
        single: whether in float32; None: from ``SINGLE_WORK`` on.

    Returns:
        ``[U, U]`` float64 on the CPU, symmetric, zero diagonal.
    """
    seen = Gaussians.of(moments, relative_eps=relative_eps, device=device)
    if single is None:
        # Of variances in a smaller proportion float32 has no roots.
        single = exact_work(moments) >= SINGLE_WORK and relative_eps >= 1e-12
    square, near = _squared(seen, torch.float32 if single else torch.float64)
    return (refined(square, near, seen) if single else square).sqrt().cpu()


def refined(square: Tensor, near: Tensor, seen: Gaussians) -> Tensor:
    """Squared distances, with those of units that are near each other computed again in float64.

    Args:
        square: ``[U, U]`` float64; changed in place.
        near: which distances are not to be relied on, ``[U, U]`` bool, symmetric.
        seen: what the units see.
    """
    _, labels = connected_components(csr_matrix(near.cpu().numpy()), directed=False)
    for component in np.flatnonzero(np.bincount(labels) > 1):
        index = torch.from_numpy(np.flatnonzero(labels == component))
        part, _ = _squared(seen.units(index), torch.float64)
        square[index.unsqueeze(1), index] = part
    return square


def _squared(seen: Gaussians, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Squared distances ``[U, U]`` float64, and which of them are lost in rounding and set to 0.

    The latter without the diagonal.
    """
    classes, _, units = seen.half.shape
    gram = torch.zeros(units, units, dtype=torch.float64, device=seen.half.device)
    partial = gram.to(dtype)  # itself in float64
    for number, rows in enumerate(_rows(seen, dtype), start=1):
        for i in range(0, units, _PANEL):
            partial[i : i + _PANEL, i:].addmm_(rows[:, i : i + _PANEL].T, rows[:, i:])
        if partial is not gram and number % _FLUSH == 0:
            gram += partial
            partial.zero_()
    if partial is not gram:
        gram += partial
    gram = gram.triu_()
    norm = gram.diagonal()
    size = norm.unsqueeze(0) + norm.unsqueeze(1)
    square = (size - 2 * gram).triu_(1)
    # Overlaps are at most 1 and round by eps of that, however near all of these units are to each other.
    rounding = seen.half.numel() // units * classes * (8 * torch.finfo(dtype).eps) ** 2
    near = (square <= _SAME[dtype] * size + rounding).triu_(1)
    square[near] = 0
    return 4 * (square + square.T).clamp_min_(0), near | near.T


def _rows(seen: Gaussians, dtype: torch.dtype) -> Iterator[Tensor]:
    """Overlaps of all class pairs, some tiles at a time, ``[rows, U]``; a row less its mean.

    Distances do not depend on the origin, and a central one keeps the Gram matrix small. Tiles on the
    diagonal have every pair twice (and K = 1 for the pair of a class with itself, the same for all units), so
    their rows weigh √½. The tensor that is handed out is used again.
    """
    classes, cells, units = seen.half.shape
    side = min(classes, max(1, math.isqrt(TILE_VALUES // (cells * units))))
    variance = seen.variance.to(dtype)
    # √√2·√σ, of which a product of two is √(2 σp σq).
    root = (seen.variance.sqrt() * math.sqrt(2)).sqrt().to(dtype)
    tile = side * side * cells
    work = [torch.empty(tile * units, dtype=dtype, device=variance.device) for _ in range(2)]
    found = torch.empty(tile * max(1, _ROWS // tile), units, dtype=dtype, device=variance.device)
    filled = 0
    for a, b in combinations_with_replacement(range(0, classes, side), 2):
        p, q = slice(a, a + side), slice(b, b + side)
        shape = (min(side, classes - a), min(side, classes - b), cells, units)
        rows = found[filled : filled + math.prod(shape[:3])]
        x, y, z = rows.view(shape), *(w[: math.prod(shape)].view(shape) for w in work)
        torch.add(variance[p].unsqueeze(1), variance[q], out=y).rsqrt_()
        # In float64: means may be far apart in proportion to what separates two of them.
        torch.sub(seen.half[p].unsqueeze(1), seen.half[q], out=x)
        x.mul_(y).square_().neg_().exp_()
        torch.mul(root[p].unsqueeze(1), root[q], out=z)
        x.mul_(z).mul_(y)
        rows.sub_(rows.mean(1, keepdim=True))
        if a == b:
            rows.mul_(math.sqrt(0.5))
        filled += len(rows)
        if filled + tile > len(found):
            yield found[:filled]
            filled = 0
    yield found[:filled]
