"""What a selection method may ask to see, as values.

A method declares statistics; what all chosen methods declared is gathered, each once, from the
calibration samples (:mod:`coprune.statistics.collect`). A statistic's key names its file, and
``per_class`` says whether every class must have samples.

Statistics of one method's own live with the method and say themselves how they are gathered:
:class:`Streamed` ones while the batches pass, :class:`OwnPass` ones on their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

if TYPE_CHECKING:
    from coprune.data import Source
    from coprune.groups import ChannelGroup
    from coprune.statistics.class_moments import Collector

Where = Literal["consumer", "producer"]
"""Where activations are read: ``consumer``, what the next layer reads (behind batch norm, activation
and pooling); ``producer``, what the layer itself puts out. *Open* in CoSeP."""

ImportanceKind = Literal["magnitude", "magnitude_l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian"]
"""One class of Torch-Pruning each, see :mod:`coprune.statistics.torch_pruning_scores`."""


@dataclass(frozen=True)
class ClassMoments:
    """Class-conditional means and variances of every unit.

    Attributes:
        grid: cells a side of the pixel grid; 1 is the average over all pixels, 0 every pixel.
        at: where the activation is read.
    """

    grid: int = 1
    at: Where = "consumer"
    per_class: ClassVar[bool] = True

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"class_moments-{self.at}-grid{self.grid}"


@dataclass(frozen=True)
class WeightScore:
    """A score of every unit that is read off the weights; needs no data.

    Attributes:
        kind: a name of :data:`coprune.statistics.weights.SCORES`.
    """

    kind: str
    per_class: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"weights-{self.kind}"


@dataclass(frozen=True)
class Importance:
    """Torch-Pruning's importance of every unit; see :mod:`coprune.statistics.torch_pruning_scores`.

    Attributes:
        kind: which of its classes.
    """

    kind: ImportanceKind
    per_class: ClassVar[bool] = False

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
    def per_class(self) -> bool:
        """Whether every class must have samples."""
        return self.classes

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"consumer_covariance-{self.places}{'-classes' if self.classes else ''}"


@runtime_checkable
class Streamed(Protocol):
    """A statistic that brings its own collector for the common pass over the data."""

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        ...

    @property
    def per_class(self) -> bool:
        """Whether every class must have samples."""
        ...

    def collector(self, groups: tuple[ChannelGroup, ...], *, classes: int) -> Collector:
        """What gathers it over the groups it is meant for."""
        ...


@runtime_checkable
class OwnPass(Protocol):
    """A statistic that calls the model itself (for gradients), or looks at its weights only."""

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        ...

    @property
    def per_class(self) -> bool:
        """Whether every class must have samples."""
        ...

    def measure(
        self,
        model: nn.Module,
        groups: tuple[ChannelGroup, ...],
        source: Source,
        *,
        classes: int,
        device: str,
        label: str,
    ) -> Mapping[str, Tensor]:
        """Name → tensor on the CPU, for the groups it is meant for."""
        ...


Statistic = ClassMoments | WeightScore | Importance | ConsumerCovariance | Streamed | OwnPass
