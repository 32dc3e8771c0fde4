"""A partition of a group's units around medoids.

Shapes: ``U`` units, ``k`` medoids.
"""

from __future__ import annotations

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
