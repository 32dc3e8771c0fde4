"""What any method's choice loses for every k, so that a measured allocation can go by it.

The default's elimination knows its own loss. Of another choice it is what the consumers' outputs lose when
they read its k units only and are solved again on them: the same error in the same unit, so that methods
differ in which units stay and in nothing else.

Shapes: ``U`` units, ``b`` values of a unit that a consumer reads at a place, ``D = U·b``, ``O`` outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from coprune.budget.sensitivity_curves import Curved, levels, resolved
from coprune.groups import ChannelGroup
from coprune.methods.base import GroupChoice, Untouched
from coprune.statistics import Consumer, ConsumerCovariance, Profile

READS = ConsumerCovariance()
"""The statistic behind these curves."""

_SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8, 15 / 16)
"""Of a group's units, at which the loss is computed; between them it is interpolated."""


@dataclass(frozen=True)
class CurvedChoice:
    """A choice, and what its consumers lose.

    Attributes:
        choice: a method's, of one group.
        consumers: what reads the group.
    """

    choice: GroupChoice
    consumers: tuple[Consumer, ...]

    @property
    def group(self) -> ChannelGroup:
        """The group."""
        return self.choice.group

    def kept(self, k: int) -> Tensor:
        """The units that stay, sorted, ``[K]``."""
        return torch.tensor(self.choice.keep(k, why="").kept)

    @cached_property
    def loss(self) -> Tensor:
        """``[U + 1]`` float64: squared error of the consumers' outputs, weighed by what it costs."""
        size = self.group.size
        at = levels(size, _SHARES)
        kept = [torch.empty(0, dtype=torch.int64), *map(self.kept, at)]
        found = [sum(_lost(consumer, units, size) for consumer in self.consumers) for units in kept]
        curve = torch.from_numpy(np.interp(np.arange(size + 1), [0, *at, size], [*found, 0.0]))
        return curve.flip(0).cummax(0).values.flip(0)


def _lost(consumer: Consumer, kept: Tensor, units: int) -> float:
    """Squared error of a consumer's outputs when it reads some units only, ``E[s · (Wx − W'x)²]``."""
    solved = torch.zeros_like(consumer.weight)
    if len(kept):
        solved, _ = resolved(consumer, kept, units)
    missing = consumer.weight - solved
    errors = ((missing @ consumer.covariance) * missing).sum(1)
    return float((errors * consumer.sensitivity).sum())


def curved(choices: Sequence[GroupChoice], profile: Profile) -> list[Curved]:
    """Choices that know their loss for every k; those that leave their group whole have none.

    Args:
        choices: a method's.
        profile: with :data:`READS`, where they do not know it themselves.
    """
    left = [choice for choice in choices if not isinstance(choice, Untouched)]
    return [c if isinstance(c, Curved) else CurvedChoice(c, profile.of(READS, c.group)) for c in left]
