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
from numpy.typing import NDArray
from torch import Tensor

from coprune.clustering.assignment import Clustering

Variant = Literal["paper", "nearest"]


def silhouette_curve(distance: Tensor, clusterings: Sequence[Clustering], *, variant: Variant) -> list[float]:
    """:func:`mean_simplified_silhouette` of many clusterings of the same units.

    For ``paper`` the sums of distances to medoids are one matrix product for all of them.

    Args:
        distance: ``[U, U]`` float64.
        clusterings: of at least two medoids each.
        variant: see :func:`mean_simplified_silhouette`.

    Returns:
        A value in [−1, 1] for each.
    """
    if variant != "paper" or not clusterings:
        return [mean_simplified_silhouette(distance, c, variant=variant) for c in clusterings]
    chosen = torch.zeros(len(distance), len(clusterings), dtype=torch.float64)
    for column, clustering in enumerate(clusterings):
        chosen[torch.from_numpy(clustering.medoids), column] = 1
    sums = (distance @ chosen).numpy()
    units = np.arange(len(distance))
    found = []
    for column, c in enumerate(clusterings):
        a = distance.numpy()[units, c.medoids[c.labels]]
        found.append(_paper(a, sums[:, column], len(c.medoids)))
    return found


def _paper(a: NDArray[np.float64], sums: NDArray[np.float64], k: int) -> float:
    """From the distances to the own medoid and the sums over all medoids, ``[U]`` each."""
    counted = a > 0
    if not counted.any():
        return 1.0
    a, b = a[counted], ((sums - a) / (k - 1))[counted]
    return float(((b - a) / np.maximum(a, b)).mean())  # max ≥ a > 0


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
        return _paper(a, to_medoid.sum(1), k)
    others = to_medoid.copy()
    np.put_along_axis(others, own, np.inf, 1)
    b = others.min(1)
    largest = np.maximum(a, b)
    # Both zero: the unit sits on two medoids at once and belongs to neither more than to the other.
    s = np.divide(b - a, largest, out=np.zeros_like(a), where=largest > 0)
    return float(s.mean())
