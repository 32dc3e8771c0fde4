"""k-medoids of every k in one search: the swaps of k begin from the medoids of k − 1 or of k + 1.

Objective and moves are PAM's (Kaufman & Rousseeuw 1990): at every k no swap of a medoid with another unit
lowers the sum of distances to the nearest medoid. What a swap would change is FasterPAM's sum (Schubert &
Rousseeuw 2021, arXiv 2008.05171), arranged so that it can be kept from k to k instead of summed anew:

    Δ(i → c) = A[i, c] − gain[c],   gain[c] = Σ_o max(0, near_o − d(o, c))
    A[i, c] = Σ_{o of i} clip(d(o, c) − near_o, 0, second_o − near_o)  ≥ 0

Only units whose nearest or second medoid changes change these sums. A medoid that is added can only lower
gains, so where A is as before no swap has become worth while, and only clusters that were touched are looked
at again; after a swap or a removal, so are the units whose gain rose.

Shapes: ``U`` units, ``k`` medoids.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from coprune.clustering.assignment import Clustering

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_ROUNDING = 1e-12  # of the first loss: a swap that promises less is none


def medoids_every_k(distance: Floats) -> list[Clustering]:
    """The better one of a growing and a shrinking search for every k from 2 to U − 1.

    Args:
        distance: ``[U, U]`` symmetric, C-contiguous; at least three units.

    Returns:
        One clustering for each k. No single swap lowers the loss of any of them (by more than rounding).
    """
    search, found = Medoids(distance), []
    for _ in range(2, len(distance)):
        search.grow()
        found.append(search.clustering())
    for k in range(len(distance) - 2, 1, -1):
        search.shrink()
        if search.loss < found[k - 2].loss:
            found[k - 2] = search.clustering()
    return found


class Medoids:
    """A set of medoids that grows or shrinks by one, and is then swapped until nothing helps.

    Begins with the one unit that is nearest to all.

    Args:
        distance: ``[U, U]`` symmetric, C-contiguous.
    """

    def __init__(self, distance: Floats) -> None:
        units, first = len(distance), int(distance.sum(1).argmin())
        self._d = distance
        self._medoids: Indices = np.array([first], dtype=np.int64)
        # Of every unit its nearest and second nearest medoid, as positions in the list; how far they are.
        self.near: Indices = np.zeros(units, dtype=np.int64)
        self.second, self.d1, self.d2 = self.near - 1, distance[first].copy(), np.full(units, np.inf)
        self._gain: Floats = np.zeros(units)
        self._a: Floats = np.zeros((units, units))  # a row a medoid; of those that are there
        self._count(np.arange(units), sign=1)
        self._least = _ROUNDING * self.loss

    def clustering(self) -> Clustering:
        """What was found; a unit as near to several medoids belongs to one that was there before."""
        order = self._medoids.argsort()
        rank = order.argsort()
        labels = rank[self.near]
        labels[self._medoids] = rank  # a medoid belongs to itself, also one that has a twin
        return Clustering(self._medoids[order], labels, self.loss)

    @property
    def loss(self) -> float:
        """Sum of the distances to the nearest medoid."""
        return float(self.d1.sum())

    def grow(self) -> None:
        """Add the unit that lowers the loss most (the first of equals), then swap."""
        worth = self._gain.copy()
        worth[self._medoids] = -np.inf  # a duplicate of a medoid may be added, a medoid itself may not
        unit = int(worth.argmax())
        self._medoids = np.append(self._medoids, unit)
        self._settle(self._put(len(self._medoids) - 1, unit))

    def shrink(self) -> None:
        """Take out the medoid that is missed least (the first of equals), then swap; needs three."""
        last = len(self._medoids) - 1
        slot = int(np.bincount(self.near, weights=self.d2 - self.d1, minlength=last + 1).argmin())
        orphans = np.flatnonzero((self.near == slot) | (self.second == slot))
        gain = self._gain.copy()
        slots = self._count(orphans, sign=-1)
        # The last takes its place in the list.
        self._medoids[slot] = self._medoids[last]
        self._medoids = self._medoids[:last].copy()
        self._a[slot], self._a[last] = self._a[last], 0
        for to in (self.near, self.second):
            to[to == last] = slot
        self._reassign(orphans)
        slots = ({slot if i == last else i for i in slots} | self._count(orphans, sign=1)) - {last}
        self._settle(slots | self._risen(gain))

    def _put(self, slot: int, unit: int) -> set[int]:
        """Make a unit the medoid of a place in the list, old or new; the clusters whose sums change."""
        to = self._d[unit]
        orphaned, nearest, second = (self.near == slot) | (self.second == slot), to < self.d1, to < self.d2
        changed = np.flatnonzero(second | orphaned)
        slots = self._count(changed, sign=-1)
        self._medoids[slot] = unit
        self.second = np.where(nearest, self.near, np.where(second, slot, self.second))
        self.d2 = np.where(nearest, self.d1, np.where(second, to, self.d2))
        self.near, self.d1 = np.where(nearest, slot, self.near), np.where(nearest, to, self.d1)
        self._reassign(np.flatnonzero(orphaned))  # they may have lost what they compared with
        return slots | self._count(changed, sign=1)

    def _reassign(self, orphans: Indices) -> None:
        """Find the nearest two of all medoids."""
        to = self._d[orphans[:, None], self._medoids]
        two = np.argpartition(to, 1, axis=1)[:, :2]
        dist = np.take_along_axis(to, two, 1)
        order = dist.argsort(axis=1, kind="stable")
        two, dist = np.take_along_axis(two, order, 1), np.take_along_axis(dist, order, 1)
        self.near[orphans], self.second[orphans] = two.T
        self.d1[orphans], self.d2[orphans] = dist.T

    def _count(self, units: Indices, *, sign: int) -> set[int]:
        """Add (or take away) what some units contribute to the sums; their clusters."""
        slots, near = self.near[units], torch.from_numpy(self.d1[units]).unsqueeze(1)
        apart = torch.from_numpy(self._d).index_select(0, torch.from_numpy(units)).sub_(near)
        torch.from_numpy(self._gain).sub_(apart.clamp_max(0).sum(0), alpha=sign)
        apart.clamp_min_(0).clamp_max_(torch.from_numpy(self.d2[units]).unsqueeze(1) - near)
        torch.from_numpy(self._a).index_add_(0, torch.from_numpy(slots), apart, alpha=sign)
        return set(slots.tolist())

    def _settle(self, dirty: set[int]) -> None:
        """Swap until no swap lowers the loss; ``dirty``: clusters of which that is not known."""
        while dirty:
            rows = np.array(sorted(dirty))
            change = self._a[rows] - self._gain
            change[:, self._medoids] = 0
            best = change.argmin(1)
            worth = change[np.arange(len(rows)), best]
            dirty = set(rows[worth < -self._least].tolist())
            if not dirty:
                return
            at = int(worth.argmin())
            gain, loss = self._gain.copy(), self.loss
            dirty |= self._put(int(rows[at]), int(best[at]))
            if self.loss >= loss:
                return  # only rounding promised something
            dirty |= self._risen(gain)

    def _risen(self, before: Floats) -> set[int]:
        """Clusters that a unit whose gain has risen may now take."""
        risen = np.flatnonzero(self._gain > before)
        worth = self._a[: len(self._medoids), risen] - self._gain[risen]
        return set(np.flatnonzero((worth < -self._least).any(1)).tolist())
