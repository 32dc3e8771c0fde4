"""Mean Simplified Silhouette: how far the clusters are apart, from distances to medoids only.

For a unit i: a(i) is the distance to its own medoid, b(i) to the others, s(i) = (b − a)/max(a, b).
GB-AFS (10.1186/s40537-024-00934-5) and CoSeP (arXiv 2505.13225) take b as the *mean* over the other
medoids; the usual simplified silhouette (Hruschka, de Castro & Campello 2004) takes the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from coprune.clustering.assignment import Clustering

Variant = Literal["paper", "nearest"]


def silhouette_curve(distance: Tensor, clusterings: Sequence[Clustering], *, variant: Variant) -> list[float]:
    """Mean of s over the units, for each of many clusterings of the same units.

    Args:
        distance: ``[U, U]`` float64.
        clusterings: of at least two medoids each.
        variant: ``paper``: b is the mean distance to the other medoids and only units with a > 0
            count, so medoids and their duplicates drop out; 1 when none remain. ``nearest``: b is
            the distance to the nearest other medoid and all units count; a medoid has s = 1, a unit
            at distance 0 of two medoids has s = 0.

    Returns:
        A value in [−1, 1] for each.
    """
    d, units = distance.numpy(), np.arange(len(distance))
    chosen = np.zeros((len(d), len(clusterings)))
    for column, clustering in enumerate(clusterings):
        chosen[clustering.medoids, column] = 1
    # One product for all clusterings.
    sums = (distance @ torch.from_numpy(chosen)).numpy() if variant == "paper" else chosen
    found = []
    for c, total in zip(clusterings, sums.T, strict=True):
        a = d[units, c.medoids[c.labels]]
        if variant == "paper":
            counted = a > 0
            b = (total - a) / (len(c.medoids) - 1)
        else:
            counted = np.ones_like(a, dtype=bool)
            others = d[:, c.medoids].copy()
            others[units, c.labels] = np.inf
            b = others.min(1)
        largest = np.maximum(a, b)
        # Both zero: the unit sits on two medoids at once and belongs to neither more than to the other.
        s = np.divide(b - a, largest, out=np.zeros_like(a), where=largest > 0)
        found.append(float(s[counted].mean()) if counted.any() else 1.0)
    return found
