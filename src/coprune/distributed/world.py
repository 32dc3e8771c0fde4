"""Which of the processes of a run this is. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """One process among those of a run.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1


_here = Place()


def here() -> Place:
    """This process."""
    return _here


def settle(place: Place) -> None:
    """Say which process this is; for whoever starts and ends a run of several."""
    global _here
    _here = place


def rank() -> int:
    """Number of this process, from 0."""
    return _here.rank


def world() -> int:
    """How many processes do this run; 1 unless they have joined."""
    return _here.world


def is_first() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return _here.rank == 0


def own(items: Sequence[T]) -> Sequence[T]:
    """This process's share of some items: every ``world``-th, so that neighbours are shared out."""
    return items[_here.rank :: _here.world]


def own_part(samples: int) -> slice:
    """This process's samples of a batch of training; one that is not its own, when it has none.

    Args:
        samples: of the batch.
    """
    # Every process must take part in the exchange of gradients; see coprune.training.loop for its weight.
    return slice(_here.rank, None, _here.world) if _here.rank < samples else slice(0, 1)


def own_range(count: int) -> range:
    """This process's share of ``count`` items that should stay together, in order."""
    return range(count * _here.rank // _here.world, count * (_here.rank + 1) // _here.world)
