"""A partition of a group's units around medoids.

Shapes: ``U`` units, ``k`` medoids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clustering:
    """One partition.

    Attributes:
        medoids: central units, ``[k]`` sorted.
        labels: index into ``medoids`` of every unit, ``[U]``.
        loss: sum of the distances to the own medoid.
    """

    medoids: NDArray[np.int64]
    labels: NDArray[np.int64]
    loss: float


def assign(distance: NDArray[np.float64], medoids: NDArray[np.int64]) -> Clustering:
    """Give every unit to its nearest medoid (the first of equals; a medoid to itself).

    Args:
        distance: ``[U, U]``.
        medoids: ``[k]`` sorted.
    """
    to_medoid = distance[:, medoids]
    labels = to_medoid.argmin(1).astype(np.int64)
    labels[medoids] = np.arange(len(medoids))
    loss = float(np.take_along_axis(to_medoid, labels[:, None], 1).sum())
    return Clustering(medoids, labels, loss)


def with_k(distance: NDArray[np.float64], clusterings: Sequence[Clustering], k: int) -> Clustering:
    """The partition into ``k`` clusters, 1 … U.

    Args:
        distance: ``[U, U]``.
        clusterings: for k = 2 … U − 1.
    """
    if k >= len(distance):
        return assign(distance, np.arange(len(distance)))
    return clusterings[k - 2] if k > 1 else assign(distance, distance.sum(1).argmin(keepdims=True))


def heaviest(clustering: Clustering, weight: NDArray[np.float64]) -> NDArray[np.int64]:
    """The unit of each cluster with the largest weight, ``[k]``; of equals the one with the lower index.

    Args:
        clustering: of ``U`` units.
        weight: ``[U]``.
    """
    # Sorted by descending weight, stably: the first unit met of a cluster is its heaviest.
    order = np.argsort(-weight, kind="stable")
    return order[np.unique(clustering.labels[order], return_index=True)[1]]
