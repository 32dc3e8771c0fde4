"""Images, or other samples of one shape, held in memory.

Shapes: ``N`` samples, ``B`` samples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from coprune.data.source import MemorySource, Part, digest, not_finite
from coprune.data.trees import form_of
from coprune.tracing.forward import part_of, tensors_of


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


@dataclass(frozen=True)
class ArraySource(MemorySource):
    """Images held in memory.

    Attributes:
        images: ``[N, channels, H, W]`` (or any axes behind the channels), uint8 (0…255) or float32.
        labels: class numbers ``[N]`` int64; None without.
        normalisation: applied to every batch; None leaves values as they are (uint8: 0…1).
        augmentation: applied in training only.
        values: targets ``[N, …]`` that are no class numbers.
    """

    images: Tensor
    labels: Tensor | None
    normalisation: Normalisation | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    values: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(channels, H, W)``, or what else a sample is."""
        return tuple(self.images.shape[1:])

    def take(self, index: Tensor) -> ArraySource:
        """See :class:`~coprune.data.source.MemorySource`."""
        labels, values = part_of((self.labels, self.values), index)
        return replace(self, images=self.images[index], labels=labels, values=values)

    def fingerprint(self) -> str:
        """A digest of pixels, labels and normalisation: the same data gives the same text."""
        kind = str((tuple(self.images.shape), self.images.dtype, self.normalisation))
        return digest(kind, *tensors_of((self.images, self.labels, self.values)))

    def validation_error(self) -> str | None:
        """See :class:`~coprune.data.source.MemorySource`."""
        if (targets := self.every_target) is not None and len(self) != len(targets):
            return f"{len(self)} samples but {len(targets)} labels; they must be as many"
        return not_finite(self.images)

    def incompatibility(self, heldout: ArraySource) -> str | None:
        """See :class:`~coprune.data.source.MemorySource`."""
        mine, theirs = list(self.input_shape), list(heldout.input_shape)
        if self.normalisation != heldout.normalisation:
            return "samples are normalised in two ways; they need one mean and std"
        if mine != theirs:
            return f"training samples are {mine} but held-out samples are {theirs}; they must have one shape"
        if form_of(self.every_target) != form_of(heldout.every_target):
            return "training targets are of another shape or type than held-out ones; they must be alike"
        return None

    def inputs(self, parts: Sequence[Part], draw: Callable[[int], int] | None = None) -> Iterator[Tensor]:
        """See :class:`~coprune.data.source.MemorySource`."""
        for part in parts:
            images = self.images.index_select(0, part.index)
            if draw is not None:
                # Of all samples, so that the draws are those of one process alone.
                generator = torch.Generator().manual_seed(draw(part.step))
                images = augment(images, self.augmentation, generator)[part.own]
            yield self._scaled(images)

    def _scaled(self, images: Tensor) -> Tensor:
        x = images.to(torch.float32)
        if images.dtype == torch.uint8:
            x.div_(255.0)
        if self.normalisation is None:
            return x
        axes = (1, -1, *(1 for _ in self.input_shape[1:]))
        mean, std = (torch.tensor(v).view(axes) for v in (self.normalisation.mean, self.normalisation.std))
        return (x - mean) / std


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Flip and shift a batch, each image by its own draw.

    Args:
        images: ``[B, channels, H, W]``, any dtype.
        how: what may happen to an image.
        generator: the source of randomness.

    Returns:
        A tensor ``[B, channels, H, W]`` of the same dtype.
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
