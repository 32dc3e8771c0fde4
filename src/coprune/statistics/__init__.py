"""Statistics of behaviour: streamed, mergeable, each collected once. Knows nothing of methods."""

from coprune.statistics.class_moments import ClassMoments
from coprune.statistics.collect import Calibration, Collector, Profile, Statistic, collect
from coprune.statistics.input_covariance import Consumer, ConsumerCovariance
from coprune.statistics.input_moments import InputMoments
from coprune.statistics.torch_pruning_scores import Importance
from coprune.statistics.weights import L1Norm

__all__ = [
    "Calibration",
    "ClassMoments",
    "Collector",
    "Consumer",
    "ConsumerCovariance",
    "Importance",
    "InputMoments",
    "L1Norm",
    "Profile",
    "Statistic",
    "collect",
]
