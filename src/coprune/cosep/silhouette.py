"""Mean Simplified Silhouette: how far the clusters are apart, from distances to medoids only.

For a unit i: a(i) is the distance to its own medoid, b(i) to the others, s(i) = (b − a)/max(a, b).
GB-AFS (10.1186/s40537-024-00934-5) and CoSeP (arXiv 2505.13225) take b as the *mean* over the other
medoids; the usual simplified silhouette (Hruschka, de Castro & Campello 2004) takes the nearest.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from coprune.cosep.partition import Clustering

Variant = Literal["paper", "nearest"]


def mean_simplified_silhouette(distance: Tensor, clustering: Clustering, *, variant: Variant) -> float:
    """The mean of s over the units of a group.

    Args:
        distance: ``[U, U]`` float64.
        clustering: at least two medoids.
        variant: ``paper``: b is the mean distance to the other medoids and only units with a > 0
            count, so medoids and their duplicates drop out; 1 when none remain. ``nearest``: b is
            the distance to the nearest other medoid and all units count; a medoid has s = 1, a unit
            at distance 0 of two medoids has s = 0.

    Returns:
        A value in [−1, 1].
    """
    to_medoid = distance.numpy()[:, clustering.medoids]
    k = len(clustering.medoids)
    own = clustering.labels[:, None]
    a = np.take_along_axis(to_medoid, own, 1)[:, 0]
    if variant == "paper":
        b = (to_medoid.sum(1) - a) / (k - 1)
        counted = a > 0
        if not counted.any():
            return 1.0
        a, b = a[counted], b[counted]
    else:
        others = to_medoid.copy()
        np.put_along_axis(others, own, np.inf, 1)
        b = others.min(1)
    largest = np.maximum(a, b)
    # Both zero: the unit sits on two medoids at once and belongs to neither more than to the other.
    s = np.divide(b - a, largest, out=np.zeros_like(a), where=largest > 0)
    return float(s.mean())
