"""Where batches come from: one small interface, two kinds of source.

Shapes: ``N`` samples, ``B`` samples of a batch, ``C`` classes.

A source hands out samples in two ways. :meth:`Source.batches` is for looking (statistics, accuracy):
fixed order, no augmentation. :meth:`Source.epoch` is for training: shuffled and augmented, and a pure
function of ``(seed, epoch)``, which is what makes an interrupted training continue exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from coprune.distributed.world import own_part
from coprune.errors import UserError
from coprune.seeding import derived_seed
from coprune.tracing.forward import Inputs, tensors_of

Batch = tuple[Inputs, Tensor]


class Source(Protocol):
    """Labelled samples that can be looked at in order and trained on in batches."""

    def __len__(self) -> int:
        """Number of samples, ``N``."""
        ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Inputs ``[B, …]`` (float32, or named) and labels ``[B]`` int64, fixed order, no augmentation."""
        ...

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, fraction: float = 1.0, skip: int = 0
    ) -> Iterator[Batch]:
        """One shuffled, augmented pass over ``fraction`` of the samples, less its first ``skip`` batches.

        Of each batch the labels of all samples, ``[B]``, and the inputs of this process's part
        (:func:`coprune.distributed.world.own_part`), ``[b, …]``; with one process, that is the batch.
        """
        ...

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        """Number of batches of one epoch of training."""
        ...


S = TypeVar("S", bound="MemorySource")


@runtime_checkable
class MemorySource(Source, Protocol):
    """A source that holds its samples, so that some of them can be taken."""

    @property
    def labels(self) -> Tensor:
        """``[N]`` int64."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch; of texts that of the longest, ``(L,)``."""
        ...

    def take(self: S, index: Tensor) -> S:
        """The samples with the given indices ``[M]``, as a source of their own."""
        ...

    def fingerprint(self) -> str:
        """A digest: the same samples give the same text."""
        ...

    def defect(self) -> str | None:
        """What makes the inputs unusable and the way out, in words; None when nothing does."""
        ...

    def unlike(self: S, heldout: S) -> str | None:
        """Why one model cannot take these training and those held-out samples; None when it can."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """Random changes of an image in training.

    Attributes:
        flip: mirror left-right with probability one half.
        shift: move by up to this many pixels each way, filling with black.
    """

    flip: bool = False
    shift: int = 0


@dataclass(frozen=True)
class Normalisation:
    """``(x − mean) / std`` per channel, after uint8 pixels were divided by 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def name_of(source: Source) -> str:
    """What messages call a source, ``""`` for one that a user gave no name."""
    return getattr(source, "name", "")


def where_in(source: Source, number: int) -> str:
    """What messages call a batch of a source, counted from 0; ``""`` where the source has no name."""
    name = name_of(source)
    return name and f"{name}, batch {number + 1}"


def not_finite(samples: Tensor) -> str | None:
    """How many of the samples ``[N, …]`` have NaN or Inf and the way out, in words; None when none has."""
    if not samples.is_floating_point():
        return None
    samples = samples.float() if samples.dtype.itemsize == 1 else samples
    if bool(torch.isfinite(samples).all()):
        return None
    bad = int((~torch.isfinite(samples)).reshape(len(samples), -1).any(1).sum())
    return f"NaN or Inf in {bad} of {len(samples)} samples; clean or drop them"


def check_finite_inputs(inputs: Inputs) -> None:
    """Refuse inputs ``[N, …]`` with NaN or Inf.

    Raises:
        UserError: says in how many samples.
    """
    for defect in filter(None, map(not_finite, tensors_of(inputs))):
        raise UserError(defect)


def batch_seed(seed: int, epoch: int, step: int) -> int:
    """A seed for one step of a training, independent of those of all other steps."""
    return derived_seed(seed, epoch, step) & (2**63 - 1)


def steps_of(samples: int, batch_size: int, fraction: float) -> int:
    """Batches of an epoch over a share of the samples."""
    return -(-max(1, round(fraction * samples)) // batch_size)


def drawn_order(samples: int, *, seed: int, epoch: int, fraction: float) -> tuple[Tensor, torch.Generator]:
    """The samples of an epoch in a random order, ``[M]`` int64, and the generator for what else is drawn."""
    generator = torch.Generator().manual_seed(batch_seed(seed, epoch, -1))
    order = torch.randperm(samples, generator=generator)
    return order[: max(1, round(fraction * samples))], generator


@dataclass(frozen=True)
class ArraySource:
    """Images held in memory.

    Attributes:
        images: ``[N, channels, H, W]`` (or any axes behind the channels), uint8 (0…255) or float32.
        labels: ``[N]`` int64.
        normalisation: applied to every batch; None leaves values as they are (uint8: 0…1).
        augmentation: applied by :meth:`epoch` only.
        as_given: hand out what is held, whatever it is: a user's own loader has made inputs of it already.
        name: what messages call it, e.g. ``calibration=``, where somebody gave it a name.
    """

    images: Tensor
    labels: Tensor
    normalisation: Normalisation | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    as_given: bool = False
    name: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> ArraySource:
        """The samples with the given indices ``[M]``, as a source of their own."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def fingerprint(self) -> str:
        """A digest of pixels, labels and normalisation: the same data gives the same text."""
        digest = hashlib.sha256()
        digest.update(str((tuple(self.images.shape), self.images.dtype, self.normalisation)).encode())
        digest.update(self.images.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(channels, H, W)``, or what else a sample is."""
        return tuple(self.images.shape[1:])

    def defect(self) -> str | None:
        """See :class:`MemorySource`."""
        images = self.images
        if len(images) != len(self.labels):
            return f"{len(images)} samples but {len(self.labels)} labels; they must be as many"
        return not_finite(images)

    def unlike(self, heldout: ArraySource) -> str | None:
        """See :class:`MemorySource`."""
        mine, theirs = list(self.input_shape), list(heldout.input_shape)
        if self.normalisation != heldout.normalisation:
            return "samples are normalised in two ways; they need one mean and std"
        if mine == theirs:
            return None
        return f"training samples are {mine} but held-out samples are {theirs}; they must have one shape"

    def _as_input(self, images: Tensor) -> Tensor:
        # A copy always: a model whose first layer works in place must not change the data set.
        if self.as_given:
            return images.clone()
        x = images.to(torch.float32, copy=True)
        if images.dtype == torch.uint8:
            x.div_(255.0)
        if self.normalisation is not None:
            alone = (1, -1, *(1 for _ in self.input_shape[1:]))
            mean = torch.tensor(self.normalisation.mean).view(alone)
            std = torch.tensor(self.normalisation.std).view(alone)
            x = (x - mean) / std
        return x

    def batches(self, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield self._as_input(self.images[part]), self.labels[part]

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        return steps_of(len(self), batch_size, fraction)

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, fraction: float = 1.0, skip: int = 0
    ) -> Iterator[Batch]:
        order, _ = drawn_order(len(self), seed=seed, epoch=epoch, fraction=fraction)
        for step, index in enumerate(order.split(batch_size)):
            if step < skip:
                continue
            generator = torch.Generator().manual_seed(batch_seed(seed, epoch, step))
            images = augment(self.images[index], self.augmentation, generator)
            yield self._as_input(images[own_part(len(index))]), self.labels[index]


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Flip and shift a batch, each image by its own draw.

    Args:
        images: ``[B, channels, H, W]``, any dtype.
        how: what may happen to an image.
        generator: the source of randomness.

    Returns:
        A new tensor ``[B, channels, H, W]`` of the same dtype.
    """
    n = len(images)
    if how.flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    if how.shift:
        s = how.shift
        height, width = images.shape[2:]
        padded = torch.nn.functional.pad(images, (s, s, s, s))
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, ch, 2s+1, 2s+1, H, W]
        dy, dx = torch.randint(0, 2 * s + 1, (2, n), generator=generator)
        images = windows[torch.arange(n), :, dy, dx].contiguous()
    return images
