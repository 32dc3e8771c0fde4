"""What can be set of ``cahp`` and of the baseline that clusters as it does; the entry of ``cahp``."""

from __future__ import annotations

from typing import Annotated, Literal

from coprune.bounds import Bounds, Share
from coprune.lazy import deferred
from coprune.methods.base import Method
from coprune.options import Options

SIGNATURES = deferred("coprune.methods.cahp.signatures:HeadSignatures")
SALIENCE = deferred("coprune.methods.cahp.salience:HeadSalience")


class ClusterSettings(Options):
    """How heads are clustered.

    Attributes:
        grid: cells a side of the resized attention map; 48 for long pairs of sentences.
        space: cluster in the 2-D ``tsne``, or in the ``full`` space of the distances.
        mss: silhouette: ``paper``, mean distance to the other medoids, or ``nearest``, the usual one.
        knee_degree: degree of Kneedle's polynomial; CAHP's 6, it also tried 2 to 5.
    """

    grid: Annotated[int, Bounds(1, 512)] = 32
    space: Literal["tsne", "full"] = "tsne"
    mss: Literal["paper", "nearest"] = "paper"
    knee_degree: Annotated[int, Bounds(1, 12)] = 6


class CAHPSettings(ClusterSettings):
    """How heads are clustered and ranked.

    Attributes:
        share: share of the batches that the salience is read from.
    """

    share: Share = 0.25


CAHP = Method(
    name="cahp",
    summary="the most salient head of each cluster that separates the same classes (arXiv 2606.19150)",
    settings=CAHPSettings,
    needs=lambda settings: (SIGNATURES(settings.grid), SALIENCE(settings.share)),
    choose=deferred("coprune.methods.cahp.method:choose"),
    has_knee=True,
    joint=True,
    recovery="none",  # the paper trains, and recovers nothing before
    units=("heads",),
)
