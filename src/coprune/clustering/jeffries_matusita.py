"""How well a unit separates two classes: Jeffries–Matusita distance of two Gaussians.

    B  = ¼ (μp − μq)² / (σp² + σq²) + ½ ln((σp² + σq²) / (2 σp σq))       Bhattacharyya
    JM = 2 (1 − e^−B)                                                   in [0, 2]

Formulas: CoSeP (arXiv 2505.13225), GB-AFS (10.1186/s40537-024-00934-5), after Bhattacharyya (1943)
and Matusita (1966). A unit's *profile* is its JM over all class pairs and grid cells; the units of a
group are compared by the Euclidean distance of their profiles (:mod:`coprune.clustering.distances`).

Shapes: ``C`` classes, ``U`` units, ``G`` grid cells, ``P = C(C−1)/2`` class pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coprune.statistics.moments import Moments


def class_pairs(classes: int) -> Tensor:
    """All pairs p < q in lexicographic order, ``[2, P]`` int64."""
    return torch.triu_indices(classes, classes, 1)


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


def separability(mean: Tensor, variance: Tensor, pairs: Tensor) -> Tensor:
    """JM distance of the given class pairs.

    Args:
        mean: ``[C, U, G]`` float64.
        variance: ``[C, U, G]`` float64, positive.
        pairs: ``[2, B]`` int64, the pairs wanted.

    Returns:
        ``[B, U, G]`` float64 in [0, 2].
    """
    p, q = pairs
    total = variance[p] + variance[q]
    # ln of the product under the root as a sum of logs: products of tiny variances underflow.
    log_variance = variance.log()
    b = 0.25 * (mean[p] - mean[q]).square() / total
    b += 0.5 * (torch.log(total / 2) - 0.5 * (log_variance[p] + log_variance[q]))
    # −expm1 keeps the digits of near-identical classes; rounding can leave B a hair below 0.
    return torch.expm1(-b.clamp_min_(0)).mul_(-2)


def profiles(moments: Moments, *, relative_eps: float) -> Tensor:
    """The whole profile matrix ``[U, P·G]`` float64. For small problems and tests."""
    variance = floor_variance(moments, relative_eps=relative_eps)
    pairs = class_pairs(len(moments.count))
    return separability(moments.mean, variance, pairs).permute(1, 0, 2).flatten(1)
