"""How differently two heads tell the classes apart, for all heads of all layers at once.

CAHP (arXiv 2606.19150): the Jeffries–Matusita distance of every cell of a head's map for every pair
of classes makes the head's row, ``B² · C(C−1)/2`` values; heads are compared by the Euclidean distance
of their rows. The rows are never held: blocks of class pairs are added up in the Gram matrix
(:func:`coprune.clustering.distances.profile_distances`).

Shapes: ``C`` classes, ``A`` heads of all layers, ``G = B²`` cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coprune.clustering.distances import profile_distances
from coprune.errors import UserError
from coprune.methods.cahp.signatures import VARIANCE_FLOOR
from coprune.statistics.moments import Moments


def together(layers: Sequence[Moments]) -> Moments:
    """The signatures of all layers as one, with no variance below CAHP's floor.

    A class with one sample gets the floor as its variance. Classes without samples are left out:
    they have no mean that could differ.

    Args:
        layers: moments ``[C, H, G]`` of each, over the same samples.

    Returns:
        Moments ``[C', A, G]`` with a count of at least two.

    Raises:
        UserError: fewer than two classes have samples.
    """
    seen = layers[0].count > 0
    if int(seen.sum()) < 2:
        raise UserError("head signatures compare classes, and fewer than two have samples; give more data")
    count = layers[0].count[seen].clamp_min(2)
    variance = torch.cat([m.variance[seen] for m in layers], 1).clamp_min_(VARIANCE_FLOOR)
    mean = torch.cat([m.mean[seen] for m in layers], 1)
    return Moments(count, mean, variance * (count - 1).view(-1, 1, 1))


def head_distances(layers: Sequence[Moments]) -> Tensor:
    """Euclidean distances between the heads' rows of Jeffries–Matusita distances.

    Args:
        layers: moments ``[C, H, G]`` of each layer.

    Returns:
        ``[A, A]`` float64, symmetric, zero diagonal; heads in the order of the layers.
    """
    # The absolute floor is in the moments already; a relative one must not come on top of it.
    return profile_distances(together(layers), relative_eps=torch.finfo(torch.float64).tiny)
