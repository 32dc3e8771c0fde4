"""Statistics of behaviour: streamed, mergeable, gathered in one pass. Knows nothing of methods."""

from coprune.profile.gather import Profile, gather
from coprune.profile.statistic import ClassMoments, GateGradient, Statistic, WeightScore

__all__ = ["ClassMoments", "GateGradient", "Profile", "Statistic", "WeightScore", "gather"]
