"""Where batches come from: one interface, and what all samples that can be taken apart have in common.

Shapes: ``N`` samples, ``B`` samples of a batch, ``M`` of those taken.

A source hands out samples in two ways. :meth:`Source.batches` is for looking (statistics, accuracy):
fixed order, no augmentation. :meth:`Source.epoch` is for training: shuffled and augmented, and a pure
function of ``(seed, epoch)``, which is what makes an interrupted training continue exactly.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from coprune.distributed.world import own_part
from coprune.errors import UserError
from coprune.tracing.forward import Inputs, part_of, tensors_of

Batch = tuple[Inputs, Any]
"""Inputs, and targets: a tree of tensors with samples first, a list of samples, or None."""

S = TypeVar("S", bound="MemorySource")


class Source(Protocol):
    """Samples that can be looked at in order and trained on in batches."""

    def __len__(self) -> int:
        """Number of samples, ``N``."""

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Inputs ``[B, …]`` and targets (class numbers ``[B]`` int64), fixed order, no augmentation."""

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, fraction: float = 1.0, skip: int = 0
    ) -> Iterator[Batch]:
        """One shuffled, augmented pass over ``fraction`` of the samples, less its first ``skip`` batches.

        Of each batch the targets of all samples, ``[B, …]``, and the inputs of this process's part
        (:func:`coprune.distributed.world.own_part`), ``[b, …]``; with one process, that is the batch.
        """

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        """Number of batches of one epoch of training."""


@dataclass(frozen=True)
class Part:
    """The samples of one batch.

    Attributes:
        index: which they are, ``[B]`` int64.
        own: those of them that this process reads.
        step: number of the batch in its pass.
        start: number of its first sample in its pass.
    """

    index: Tensor
    own: slice
    step: int = 0
    start: int = 0


class MemorySource(ABC):
    """Samples of which some can be taken, in memory or in files. A kind of data says how they are read.

    Attributes:
        labels: class numbers ``[N]`` int64; None where targets are none, or of another kind.
        values: such targets of another kind, any tree with samples first.
        name: what messages call it, e.g. ``calibration=``, where somebody gave it a name.
    """

    labels: Tensor | None
    values: Any = None
    name: str = ""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def input_shape(self) -> Any:
        """Shape of one sample, without the batch; of texts that of the longest, ``(L,)``; or named ones."""

    @abstractmethod
    def take(self: S, index: Tensor) -> S:
        """The samples with the given indices ``[M]``, as a source of their own."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest: the same samples give the same text."""

    @abstractmethod
    def inputs(self, parts: Sequence[Part], draw: Callable[[int], int] | None = None) -> Iterator[Inputs]:
        """New inputs ``[b, …]`` of every part's own samples, which nothing else holds.

        Args:
            parts: batches of samples.
            draw: a number in the pass (of a batch, or of a sample) → the seed of its augmentation; without
                it nothing is augmented.
        """

    def validation_error(self) -> str | None:
        """What makes the inputs unusable and the way out, in words; None when nothing does."""
        return None

    def incompatibility(self: S, heldout: S) -> str | None:
        """Why one model cannot take these training and those held-out samples; None when it can."""
        return None

    def order(self, batch_size: int, *, seed: int, epoch: int, fraction: float) -> Sequence[Tensor]:
        """The batches of an epoch, ``[B]`` indices each."""
        return drawn_order(len(self), seed=seed, epoch=epoch, fraction=fraction)[0].split(batch_size)

    def in_order(self, batch_size: int) -> Sequence[Tensor]:
        """The batches of a pass in the order of the samples, ``[B]`` indices each."""
        return torch.arange(len(self)).split(batch_size)

    @property
    def every_target(self) -> Any:
        """Targets of all samples, whatever they are; None without."""
        return self.values if self.labels is None else self.labels

    def targets(self, index: Tensor) -> Any:
        """Targets of the samples with the given indices ``[B]``."""
        return part_of(self.every_target, index)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """See :class:`Source`."""
        return self._pairs([Part(at, slice(None)) for at in self.in_order(batch_size)])

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        """See :class:`Source`."""
        return -(-max(1, round(fraction * len(self))) // batch_size)

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, fraction: float = 1.0, skip: int = 0
    ) -> Iterator[Batch]:
        """See :class:`Source`."""
        order = self.order(batch_size, seed=seed, epoch=epoch, fraction=fraction)
        parts = [Part(at, own_part(len(at)), step, step * batch_size) for step, at in enumerate(order)]
        return self._pairs(parts[skip:], partial(batch_seed, seed, epoch))

    def _pairs(self, parts: Sequence[Part], draw: Callable[[int], int] | None = None) -> Iterator[Batch]:
        for part, inputs in zip(parts, self.inputs(parts, draw), strict=True):
            yield inputs, self.targets(part.index)


def digest(*parts: str | Tensor) -> str:
    """Sixteen digits that say whether texts and the bytes of tensors are the same."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode())
        else:
            found.update(part.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def name_of(source: Source) -> str:
    """What messages call a source, ``""`` for one that a user gave no name."""
    return getattr(source, "name", "")


def where_in(source: Source, number: int) -> str:
    """What messages call a batch of a source, counted from 0; ``""`` where the source has no name."""
    name = name_of(source)
    return name and f"{name}, batch {number + 1}"


def _bad(samples: Tensor) -> Tensor:
    """Which of the samples ``[N, …]`` have NaN or Inf, ``[N]`` bool."""
    samples = samples.float() if samples.is_floating_point() and samples.dtype.itemsize == 1 else samples
    found = torch.isfinite(samples)
    if bool(found.all()):
        return torch.zeros(len(samples), dtype=torch.bool)
    return ~found.reshape(len(samples), -1).all(1)


def not_finite(inputs: Inputs) -> str | None:
    """How many of the samples ``[N, …]`` have NaN or Inf and the way out, in words; None when none has."""
    if isinstance(inputs, list):
        which = [any(bool(_bad(t[None]).any()) for t in tensors_of(sample)) for sample in inputs]
    else:
        found = [_bad(t) for t in tensors_of(inputs) if t.ndim]
        which = torch.stack(found).any(0).tolist() if found else []
    if not any(which):
        return None
    return f"NaN or Inf in {sum(which)} of {len(which)} samples; clean or drop them"


def check_finite_inputs(inputs: Inputs) -> None:
    """Refuse inputs ``[N, …]`` with NaN or Inf.

    Raises:
        UserError: says in how many samples.
    """
    if error := not_finite(inputs):
        raise UserError(error)


def batch_seed(seed: int, epoch: int, step: int) -> int:
    """A seed for one step of a training, independent of those of all other steps."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (2**63 - 1)


def drawn_order(samples: int, *, seed: int, epoch: int, fraction: float) -> tuple[Tensor, torch.Generator]:
    """The samples of an epoch in a random order, ``[M]`` int64, and the generator for what else is drawn."""
    generator = torch.Generator().manual_seed(batch_seed(seed, epoch, -1))
    order = torch.randperm(samples, generator=generator)
    return order[: max(1, round(fraction * samples))], generator
