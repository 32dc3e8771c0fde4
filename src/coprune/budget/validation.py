"""What a measured allocation goes by: curves of single groups, and a trial of all cuts together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from coprune.plan import GroupDecision

BETTER = 0.9
"""A uniform allocation is taken when it diverges less than so much of the measured one: less is noise."""


@dataclass(frozen=True)
class Measured:
    """What a measured allocation goes by.

    Attributes:
        curves: group → ``[U + 1]``, what is lost when it alone keeps k units.
        divergence: how far the network is from the unpruned one after all cuts and a quick recovery.
        least: the least share of a group's units at which its curve was measured.
    """

    curves: Mapping[str, Tensor]
    divergence: Callable[[Sequence[GroupDecision]], float]
    least: float = 1.0

    def covers(self, counts: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
        """Whether curves were measured as far down as these counts; below, they are guessed.

        Args:
            counts: group → units that stay.
            sizes: group → all of its units.
        """
        return all(k >= max(1, round(self.least * sizes[name])) for name, k in counts.items())
