"""k-medoids of a group's units for every k at once.

FasterPAM (Schubert & Rousseeuw 2021, arXiv 2008.05171) from the ``kmedoids`` package.

Shapes: ``U`` units, ``M`` numbers of clusters that were tried.
"""

from __future__ import annotations

from typing import Any, Literal

import kmedoids
import numpy as np
from torch import Tensor

from coprune.clustering.assignment import Clustering, assign
from coprune.clustering.kmedoids_path import medoids_every_k

Start = Literal["auto", "previous", "random", "best"]

LARGE = 128
"""Units above which ``auto`` stops calling FasterPAM for every k, whose time grows with their third power."""


def cluster_every_k(distance: Tensor, *, seed: int, start: Start = "auto") -> list[Clustering]:
    """k-medoids for every k from 2 to U − 1.

    FasterPAM runs on one thread: its parallel form swaps in an order of its own.

    Args:
        distance: ``[U, U]`` float64.
        seed: of random starts.
        start: where the swaps begin. ``random`` is FasterPAM's usual start; ``previous`` takes the
            medoids of k − 1 and adds the unit that is farthest from its medoid, which needs few
            swaps, no seed, and gives a smoother curve. *Open* in the paper. (PAM's greedy start
            was tried: no lower loss, forty times the time at 512 units.) ``best`` takes the better one
            of k − 1 and the best addition and k + 1 and the best removal, and keeps what it knows from
            k to k (:mod:`coprune.clustering.kmedoids_path`); its local optimum may be another one than
            FasterPAM's.
            ``auto``: ``previous`` up to ``LARGE`` units, ``best`` above.

    Returns:
        One clustering for each k; empty for fewer than three units.
    """
    d = np.ascontiguousarray(distance.numpy())
    units = len(d)
    if start == "best" or (start == "auto" and units > LARGE):
        return medoids_every_k(d) if units > 2 else []
    found: list[Clustering] = []
    medoids = np.array([d.sum(1).argmin()], dtype=np.int64)
    for k in range(2, units):
        how: dict[str, Any] = {"medoids": k, "init": "random", "random_state": seed % 2**32}
        if start != "random":
            # And the unit that is farthest from its medoid (the first of equals).
            gap = d[:, medoids].min(1)
            gap[medoids] = -1  # a duplicate of a medoid may be added, a medoid itself may not
            how = {"medoids": np.append(medoids, gap.argmax()).astype(np.uint64)}
        medoids = np.sort(kmedoids.fasterpam(d, **how, n_cpu=1).medoids.astype(np.int64))
        found.append(assign(d, medoids))
    return found
