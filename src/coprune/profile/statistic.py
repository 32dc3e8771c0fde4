"""What a selection method may ask to see, as values.

A method declares statistics; what all chosen methods declared is gathered, each once, from the
calibration samples (:mod:`coprune.profile.gather`). A statistic's key names its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Where = Literal["consumer", "producer"]
"""Where activations are read: ``consumer``, what the next layer reads (behind batch norm, activation
and pooling); ``producer``, what the layer itself puts out. *Open* in CoSeP."""

ImportanceKind = Literal["magnitude", "magnitude_l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian"]
"""One class of Torch-Pruning each, see :mod:`coprune.profile.importance`."""


@dataclass(frozen=True)
class ClassMoments:
    """Class-conditional means and variances of every unit.

    Attributes:
        grid: cells a side of the pixel grid; 1 is the average over all pixels, 0 every pixel.
        at: where the activation is read.
    """

    grid: int = 1
    at: Where = "consumer"

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"class_moments-{self.at}-grid{self.grid}"


@dataclass(frozen=True)
class WeightScore:
    """A score of every unit that is read off the weights; needs no data.

    Attributes:
        kind: a name of :data:`coprune.profile.weights.SCORES`.
    """

    kind: str

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"weights-{self.kind}"


@dataclass(frozen=True)
class Importance:
    """Torch-Pruning's importance of every unit; see :mod:`coprune.profile.importance`.

    Attributes:
        kind: which of its classes.
    """

    kind: ImportanceKind

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"importance-{self.kind}"


@dataclass(frozen=True)
class ConsumerCovariance:
    """What the consumers of every group read: mean, covariance, weights, and what their errors cost.

    Attributes:
        places: at how many places of a sample each consumer is looked at.
        classes: whether class means are kept too.
    """

    places: int = 24
    classes: bool = False

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"consumer_covariance-{self.places}{'-classes' if self.classes else ''}"


Statistic = ClassMoments | WeightScore | Importance | ConsumerCovariance
