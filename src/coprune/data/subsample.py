"""Some of many samples: evenly spread, or drawn with the classes in their proportion.

Shapes: ``N`` samples, ``M`` of them taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from coprune.data.source import MemorySource, Source
from coprune.data.trees import alike
from coprune.errors import UserError
from coprune.tracing.forward import Inputs, joined, part_of, samples_in

L = TypeVar("L", bound="_Samples")


class _Samples(Protocol):
    """What can be taken apart."""

    @property
    def labels(self) -> Tensor | None: ...

    def __len__(self) -> int: ...

    def take(self: L, index: Tensor) -> L: ...


MIN_PER_CLASS = 2
"""Samples of every class that a draw takes first: fewer have no variance."""


def evenly(total: int, count: int) -> list[int]:
    """``count`` of the numbers below ``total``, ascending and evenly spread from 0 on."""
    return [i * total // count for i in range(count)]


def drawn_indices(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Draw ``count`` samples that stand for all: the classes in the proportion in which they come.

    Of every class :data:`MIN_PER_CLASS` are taken first; the others are shared out by Sainte-Laguë's method
    (the ``r``-th further sample of a class of ``n`` is called at ``(r − 1/2) / n``). Classes that are equally
    large are drawn as evenly as can be.

    Args:
        labels: ``[N]`` int64.
        count: how many to draw, at most ``N``.
        seed: the draw.

    Returns:
        Sorted indices ``[count]``.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    per_class = torch.bincount(labels)
    starts = torch.cumsum(per_class, 0) - per_class
    # Rank of every sample inside its class.
    rank = torch.arange(len(labels)) - starts[labels[order]]
    called = (rank.double() + 0.5) / per_class[labels[order]]
    called = torch.where(rank < MIN_PER_CLASS, rank.double() - MIN_PER_CLASS, called)
    return order[torch.argsort(called, stable=True)[:count]].sort().values


def classes_of(samples: _Samples) -> Tensor:
    """Class numbers ``[N]`` int64; without such all samples are of one class."""
    return torch.zeros(len(samples), dtype=torch.int64) if samples.labels is None else samples.labels


_HELDOUT_SHARE = 0.2


def held_out(parts: Mapping[str, L]) -> tuple[L, ...]:
    """Training, held-out and perhaps validation samples out of the parts ``train``, ``dev``, ``test``.

    A dev part is for validation where there is a test part, else it is held out. Without either a fifth is
    held out, the classes in their proportion, the same one in every run.
    """
    train = parts["train"]
    heldout = [parts[part] for part in ("test", "dev") if part in parts]
    if heldout:
        return train, *heldout
    count = round(_HELDOUT_SHARE * len(train))
    if not count:
        raise UserError(f"{len(train)} samples are too few to hold some of them out; give more, or a split")
    return taken_out(train, count, seed=0)


def without(index: Tensor, total: int) -> Tensor:
    """The numbers below ``total`` that are not among ``index`` ``[M]``, ascending."""
    left = torch.ones(total, dtype=torch.bool)
    left[index] = False
    return torch.nonzero(left).flatten()


def taken_out(samples: L, count: int, *, seed: int) -> tuple[L, L]:
    """Samples without ``count`` of them that stand for all, and these; see :func:`drawn_indices`."""
    drawn = drawn_indices(classes_of(samples), count, seed=seed)
    return samples.take(without(drawn, len(samples))), samples.take(drawn)


def spread(source: Source, count: int, *, seed: int = 0) -> Inputs:
    """Evenly spread samples of a source, all in one batch.

    Args:
        source: in the order in which it is stored.
        count: how many, at most; fewer when the source has fewer.
        seed: named inputs are shuffled by it: texts are stored by length, and whoever sets the last
            samples aside must not set the long ones aside.

    Returns:
        Inputs of ``min(count, len(source))`` samples; of samples of several shapes, those of the commonest.
    """
    inputs = joined(alike(spread_batches(source, count, batch_size=max(1, count))))
    if isinstance(inputs, dict):
        order = torch.randperm(samples_in(inputs), generator=torch.Generator().manual_seed(seed))
        inputs = part_of(inputs, order)
    return inputs


def spread_batches(source: Source, count: int, *, batch_size: int) -> list[Inputs]:
    """Evenly spread samples in batches as the source makes them: of texts, each as wide as its longest.

    Args:
        source, count: as for :func:`spread`.
        batch_size: at most; a user's own loader has its own.
    """
    index = evenly(len(source), min(count, len(source)))
    if isinstance(source, MemorySource):
        return [inputs for inputs, _ in source.take(torch.tensor(index)).batches(batch_size)]
    wanted, parts, seen = set(index), [], 0
    for batch, _ in source.batches(batch_size):
        here = [i for i in range(samples_in(batch)) if seen + i in wanted]
        if here:
            parts.append(part_of(batch, here))
        seen += samples_in(batch)
    return parts
