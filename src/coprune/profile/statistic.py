"""What a selection method may ask to see, as values.

A method declares statistics; one pass over the calibration samples gathers what all chosen methods
declared, each once (:mod:`coprune.profile.gather`). A statistic's key names its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Where = Literal["consumer", "producer"]
"""Where activations are read: ``consumer``, what the next layer reads (behind batch norm, activation
and pooling); ``producer``, what the layer itself puts out. *Open* in CoSeP."""


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
class GateGradient:
    """First-order effect on the loss of closing a unit (Molchanov et al. 2019, arXiv 1906.10771).

    With a gate of 1 behind every unit, ∂loss/∂gate is the sum over pixels of activation times its
    gradient. The paper averages its square over mini-batches; here a mini-batch is one sample, so
    that the result does not depend on the batch size.
    """

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return "gate_gradient"


Statistic = ClassMoments | WeightScore | GateGradient
