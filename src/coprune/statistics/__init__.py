"""Statistics of behaviour: streamed, mergeable, each gathered once. Knows nothing of methods."""

from coprune.statistics.collect import Profile, gather
from coprune.statistics.input_covariance import Consumer
from coprune.statistics.requirements import (
    ClassMoments,
    ConsumerCovariance,
    Importance,
    Statistic,
    WeightScore,
)

__all__ = [
    "ClassMoments",
    "Consumer",
    "ConsumerCovariance",
    "Importance",
    "Profile",
    "Statistic",
    "WeightScore",
    "gather",
]
