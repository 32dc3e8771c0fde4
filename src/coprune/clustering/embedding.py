"""Units as points in two dimensions: for clustering as GB-AFS does it, and for the page."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor


def classical_scaling(distance: Tensor) -> Tensor:
    """Classical multidimensional scaling (Torgerson 1952): the plane that keeps distances best.

    Args:
        distance: ``[U, U]`` float64.

    Returns:
        ``[U, 2]`` float64, centred; signs fixed so that the largest coordinate of an axis is
        positive, which makes the picture reproducible.
    """
    square = distance.square()
    centred = square - square.mean(0, keepdim=True) - square.mean(1, keepdim=True) + square.mean()
    # The two largest only: a third of the time of all, for a thousand units.
    units = len(distance)
    found = scipy.linalg.eigh((-0.5 * centred).numpy(), subset_by_index=[max(0, units - 2), units - 1])
    values, vectors = (torch.from_numpy(part) for part in found)
    axes = vectors.flip(1) * values.flip(0).clamp_min(0).sqrt()
    axes = F.pad(axes, (0, 2 - axes.shape[1]))  # a single unit has but one axis
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0)


def tsne(distance: Tensor, *, seed: int, perplexity: float = 10.0) -> Tensor:
    """t-SNE to two dimensions (van der Maaten & Hinton 2008), from scikit-learn.

    Args:
        distance: ``[U, U]`` float64, used as it is.
        seed: of the start.
        perplexity: CAHP's 10; lowered for groups of fewer than 31 units, as t-SNE demands.

    Returns:
        ``[U, 2]`` float64.
    """
    from sklearn.manifold import TSNE

    units = len(distance)
    if units < 4:
        return classical_scaling(distance)
    near = min(perplexity, (units - 1) / 3)
    plane = TSNE(perplexity=near, metric="precomputed", init="random", random_state=seed % 2**32)
    return torch.from_numpy(np.asarray(plane.fit_transform(distance.numpy()), dtype=np.float64))
