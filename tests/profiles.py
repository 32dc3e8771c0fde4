"""Jeffries–Matusita profiles as they are written down: the twin of :mod:`coprune.clustering.distances`."""

from __future__ import annotations

import torch
from torch import Tensor

from coprune.clustering.distances import floor_variance
from coprune.statistics.moments import Moments


def class_pairs(classes: int) -> Tensor:
    """All pairs p < q in lexicographic order, ``[2, P]`` int64."""
    return torch.triu_indices(classes, classes, 1)


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
