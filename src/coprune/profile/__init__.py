"""Statistics of behaviour: streamed, mergeable, each gathered once. Knows nothing of methods."""

from coprune.profile.consumers import Consumer
from coprune.profile.gather import Profile, gather
from coprune.profile.statistic import ClassMoments, ConsumerCovariance, Importance, Statistic, WeightScore

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
