"""What can be set of ``cosep``, and its entry in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from coprune.bounds import Bounds, NotNegative, Positive
from coprune.lazy import deferred
from coprune.methods.base import Method
from coprune.options import Options

if TYPE_CHECKING:
    from coprune.statistics import ClassMoments, Statistic


class CoSePSettings(Options):
    """The points that the papers leave open."""

    grid: Annotated[int, Bounds(0, 1024)] = Field(
        1, description="Pixel cells a side; 1 averages all pixels, 0 keeps every one."
    )
    at: Literal["consumer", "producer"] = Field(
        "producer",
        description="Read activations at the consumer (behind batch norm and activation) or the producer.",
    )
    space: Literal["profile", "tsne"] = Field(
        "profile", description="Cluster in the profile space, or in its 2-D tsne (GB-AFS, CAHP)."
    )
    mss: Literal["paper", "nearest"] = Field(
        "paper",
        description="Silhouette: paper, mean distance to the other medoids, or nearest, the usual one.",
    )
    knee: Literal["interpolate", "polynomial"] = Field(
        "polynomial", description="interpolate (GB-AFS) or polynomial (CoSeP, CAHP)."
    )
    knee_degree: Annotated[int, Bounds(1, 12)] = Field(2, description="Degree of the polynomial.")
    sensitivity: NotNegative = Field(1.0, description="Kneedle's S.")
    representative: Literal["weight", "medoid"] = Field(
        "weight", description="Keep a cluster's largest L1 weight (the papers) or its medoid."
    )
    start: Literal["auto", "previous", "random", "best"] = Field(
        "auto",
        description="Start of k-medoids: previous k, random, or the best of k ± 1; "
        "auto: best above 128 units, else previous.",
    )
    pairs: Literal["auto", "exact", "sketch"] = Field(
        "auto", description="Compare class pairs exactly or by a sketch; auto: a sketch of large groups."
    )
    tolerance: Annotated[float, Bounds(1e-3, 2)] = Field(
        0.03, description="Largest error of a sketched distance, in JM a class pair."
    )
    variance_eps: Positive = Field(
        1e-6, description="Floor of a class variance, relative to the unit's mean square."
    )

    @property
    def moments(self) -> ClassMoments:
        """The statistic these settings read."""
        from coprune.statistics import ClassMoments

        return ClassMoments(grid=self.grid, at=self.at)


def _needs(settings: CoSePSettings) -> tuple[Statistic, ...]:
    from coprune.statistics import L1Norm

    return (settings.moments, L1Norm())


COSEP = Method(
    name="cosep",
    summary="one channel of each cluster that separates the same classes (arXiv 2505.13225)",
    settings=CoSePSettings,
    needs=_needs,
    choose=deferred("coprune.methods.cosep.method:choose"),
    has_knee=True,
    recovery="bn",
    units=("inner", "coupled"),
)
