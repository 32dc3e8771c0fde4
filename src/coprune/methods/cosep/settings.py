"""What can be set of ``cosep``, and its entry in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from coprune.bounds import Bounds, NotNegative, Positive
from coprune.lazy import deferred
from coprune.methods.base import Method
from coprune.options import Options

if TYPE_CHECKING:
    from coprune.statistics import ClassMoments


class CoSePSettings(Options):
    """The points that the papers leave open.

    Attributes:
        grid: pixel cells a side; 1 averages all pixels, 0 keeps every one.
        at: read activations at the ``consumer`` (behind batch norm and activation) or the ``producer``.
        space: cluster in the ``profile`` space, or in its 2-D ``tsne`` (GB-AFS, CAHP).
        mss: silhouette: ``paper``, mean distance to the other medoids, or ``nearest``, the usual one.
        knee: ``interpolate`` (GB-AFS) or ``polynomial`` (CoSeP, CAHP).
        knee_degree: degree of the polynomial: 2 in CoSeP's first version, 6 in CAHP.
        sensitivity: Kneedle's S.
        representative: keep a cluster's largest L1 ``weight`` (the papers) or its ``medoid``.
        start: start of k-medoids: ``previous`` k, ``random``, or the ``best`` of k ± 1; ``auto``: best above
            128 units, else previous.
        pairs: compare class pairs ``exact`` or by a ``sketch``; ``auto``: a sketch of large groups
            (:data:`coprune.clustering.distances_lowrank.LARGE`).
        tolerance: largest error of a sketched distance, in JM a class pair.
        variance_eps: floor of a class variance, relative to the unit's mean square.
    """

    grid: Annotated[int, Bounds(0, 1024)] = 1
    at: Literal["consumer", "producer"] = "producer"
    space: Literal["profile", "tsne"] = "profile"
    mss: Literal["paper", "nearest"] = "paper"
    knee: Literal["interpolate", "polynomial"] = "polynomial"
    knee_degree: Annotated[int, Bounds(1, 12)] = 2
    sensitivity: NotNegative = 1.0
    representative: Literal["weight", "medoid"] = "weight"
    start: Literal["auto", "previous", "random", "best"] = "auto"
    pairs: Literal["auto", "exact", "sketch"] = "auto"
    tolerance: Annotated[float, Bounds(1e-3, 2)] = 0.03
    variance_eps: Positive = 1e-6

    @property
    def moments(self) -> ClassMoments:
        """The statistic these settings read."""
        from coprune.statistics import ClassMoments

        return ClassMoments(grid=self.grid, at=self.at)


_L1_NORM = deferred("coprune.statistics:L1Norm")

COSEP = Method(
    name="cosep",
    summary="one channel of each cluster that separates the same classes (arXiv 2505.13225)",
    settings=CoSePSettings,
    needs=lambda settings: (settings.moments, _L1_NORM()),
    choose=deferred("coprune.methods.cosep.method:choose"),
    has_knee=True,
    recovery="bn",
    units=("inner", "coupled"),
)
