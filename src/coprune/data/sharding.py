"""A process's share of a pass over a source: whole batches, as one process alone would make them.

Sharing out batches and not samples keeps every forward pass what it is with one process, so that only
the order of float64 sums can differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from coprune.data.source import MemorySource, Source
from coprune.distributed.world import own, world
from coprune.tracing.forward import Inputs, samples_in


class OwnBatch(NamedTuple):
    """A batch of this process.

    Attributes:
        number: of the batch among all.
        start: number of its first sample among all.
        inputs: ``[B, …]``.
        labels: targets: class numbers ``[B]`` int64; or any tree with samples first, or None.
    """

    number: int
    start: int
    inputs: Inputs
    labels: Any


def own_steps(source: Source, batch_size: int) -> int:
    """How many batches this process has."""
    return len(own(range(source.steps(batch_size))))


def own_batches(
    source: Source, batch_size: int, *, chosen: Sequence[int] | None = None
) -> Iterator[OwnBatch]:
    """The batches of this process, in order; with one process, all.

    Args:
        source: the same in every process.
        batch_size: samples of a batch.
        chosen: numbers of the batches to look at, ascending; None: all.
    """
    mine = own(range(source.steps(batch_size)) if chosen is None else chosen)
    if isinstance(source, MemorySource) and world() > 1:
        # Only these are read from disk.
        order = source.in_order(batch_size)
        batches = source.take(torch.cat([order[n] for n in mine])).batches(batch_size) if mine else iter(())
        for number, (inputs, labels) in zip(mine, batches, strict=True):
            yield OwnBatch(number, int(order[number][0]), inputs, labels)
        return
    wanted, start = set(mine), 0
    for number, (inputs, labels) in enumerate(source.batches(batch_size)):
        # A user's own loader makes batches of its own size, and need not know how many.
        if number in wanted or (world() == 1 and chosen is None):
            yield OwnBatch(number, start, inputs, labels)
        start += samples_in(inputs)
