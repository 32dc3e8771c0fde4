"""What can be set of ``complementary``, and its entry in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from coprune.bounds import Block, NotNegative, Positive
from coprune.lazy import deferred
from coprune.methods.base import Method
from coprune.options import Options

if TYPE_CHECKING:
    from coprune.statistics import ConsumerCovariance


class ComplementarySettings(Options):
    """What the ablation takes apart.

    Attributes:
        weighting: weigh output errors by ``sensitivity``, or ``none``.
        scatter: weight of the spread between class means; 0: no labels.
        ridge: ridge of the elimination, relative to the mean diagonal.
        places: pixels sampled, a sample and layer.
    """

    weighting: Literal["sensitivity", "none"] = "sensitivity"
    scatter: NotNegative = 0.0
    ridge: Positive = 1e-3
    places: Block = 24

    @property
    def statistic(self) -> ConsumerCovariance:
        """What these settings read; the spread counts by its trace in proportion to the covariance's."""
        from coprune.statistics import ConsumerCovariance

        return ConsumerCovariance(places=self.places, classes=self.scatter > 0)


COMPLEMENTARY = Method(
    name="complementary",
    summary="the channels that the others could predict least",
    settings=ComplementarySettings,
    needs=lambda settings: (settings.statistic,),
    choose=deferred("coprune.methods.complementary.method:choose"),
    knee_of_curve=True,
    allocation="measured",
    recovery="least-squares",
    units=("inner", "heads", "neurons", "coupled"),
)
