"""k-medoids of a group's units for every k at once.

FasterPAM (Schubert & Rousseeuw 2021, arXiv 2008.05171) from the ``kmedoids`` package.

Shapes: ``U`` units, ``M`` numbers of clusters that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import kmedoids
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Start = Literal["previous", "random"]


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


def _grown(distance: NDArray[np.float64], medoids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The medoids and the unit that is farthest from its medoid (the first of equals)."""
    gap = distance[:, medoids].min(1)
    gap[medoids] = -1  # a duplicate of a medoid may be added, a medoid itself may not
    return np.append(medoids, gap.argmax()).astype(np.uint64)


def cluster_every_k(distance: Tensor, *, seed: int, start: Start = "previous") -> list[Clustering]:
    """k-medoids for every k from 2 to U − 1.

    Args:
        distance: ``[U, U]`` float64.
        seed: of random starts.
        start: where the swaps begin. ``random`` is FasterPAM's usual start; ``previous`` takes the
            medoids of k − 1 and adds the unit that is farthest from its medoid, which needs few
            swaps, no seed, and gives a smoother curve. *Open* in the paper. (PAM's greedy start
            was tried: no lower loss, forty times the time at 512 units.)

    Returns:
        One clustering for each k; empty for fewer than three units.
    """
    d = np.ascontiguousarray(distance.numpy())
    units = len(d)
    found: list[Clustering] = []
    medoids = np.array([d.sum(1).argmin()], dtype=np.int64)
    for k in range(2, units):
        if start == "random":
            result = kmedoids.fasterpam(d, k, init="random", random_state=seed)
        else:
            result = kmedoids.fasterpam(d, _grown(d, medoids))
        medoids = np.sort(result.medoids.astype(np.int64))
        found.append(assign(d, medoids))
    return found


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
