"""What counts of what a model hands back, as tensors with the samples first.

Shapes: ``N`` samples, ``T`` tokens, ``P`` places of a sample (pixels, tokens; 1 of a classifier), ``C``
channels of a place (classes, features).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coprune.tracing.forward import Inputs, mask_of, samples_in, tensors_of

MOST = 1 << 20
"""Numbers of a sample that are looked at, about: of larger outputs, such as tokens × vocabulary, so many
places are drawn. A mean over places needs no more."""
_LEAST_PLACES = 16

Reader = Callable[[Any, Inputs], Sequence[Tensor]]
"""(what the model handed back, inputs) → the tensors that count, each ``[N, …]``."""


@dataclass(frozen=True)
class Outputs:
    """The tensors that count, and which of their places do.

    Attributes:
        tensors: each ``[N, …]``.
        mask: real tokens, ``[N, T]`` bool; None where all places are real. It is for those tensors whose
            first two axes it has.
    """

    tensors: tuple[Tensor, ...]
    mask: Tensor | None = None

    def cells(self, axis: int, *, whole: bool = False) -> list[Cells]:
        """Every tensor place by place.

        Args:
            axis: where a tensor of more than two axes has its channels: 1 or -1.
            whole: whether all places are looked at, however many.
        """
        return [Cells.of(tensor, self.mask, axis, whole=whole) for tensor in self.tensors]

    def float(self) -> Outputs:
        """In float32, from whatever precision a training runs in."""
        return Outputs(tuple(t.float() for t in self.tensors), self.mask)

    def cpu(self) -> Outputs:
        """Detached and on the CPU, to be kept."""
        mask = None if self.mask is None else self.mask.cpu()
        return Outputs(tuple(t.detach().cpu() for t in self.tensors), mask)


@dataclass(frozen=True)
class Cells:
    """One tensor, place by place.

    Attributes:
        values: ``[N, P, C]``.
        weight: of every place in the mean of its sample, ``[N, P]``; None where all count alike.
    """

    values: Tensor
    weight: Tensor | None

    @staticmethod
    def of(tensor: Tensor, mask: Tensor | None, axis: int, *, whole: bool = False) -> Cells:
        """See :meth:`Outputs.cells`; of too many places some are drawn, always the same ones."""
        if tensor.ndim < 3:
            return Cells(tensor.reshape(len(tensor), 1, -1), None)
        values = tensor.movedim(axis, -1).flatten(1, -2)
        real = mask if mask is not None and axis == -1 and mask.shape == tensor.shape[:2] else None
        places = values.shape[1] if whole else max(_LEAST_PLACES, MOST // values.shape[2])
        if values.shape[1] <= places:
            return Cells(values, None if real is None else real.to(values.dtype))
        generator = torch.Generator().manual_seed(0)
        order = torch.rand(values.shape[:2], generator=generator).to(values.device)
        if real is not None:
            order = order * real.to(order.device)
        at = order.topk(places, 1).indices.sort(1).values
        drawn = values.gather(1, at.unsqueeze(2).expand(-1, -1, values.shape[2]))
        return Cells(drawn, None if real is None else real.gather(1, at).to(values.dtype))

    def split(self, samples: int) -> list[Cells]:
        """So many samples each, in their order."""
        values = self.values.split(samples)
        weights = [None] * len(values) if self.weight is None else self.weight.split(samples)
        return [Cells(*pair) for pair in zip(values, weights, strict=True)]

    @property
    def count(self) -> Tensor:
        """Places that count of every sample, ``[N, 1]``."""
        n, places, _ = self.values.shape
        if self.weight is None:
            return torch.full((n, 1), float(places), device=self.values.device)
        return self.weight.sum(1, keepdim=True).clamp_min(1)

    def mean(self, found: Tensor) -> Tensor:
        """Mean over the places of each sample, ``[N]``, of a figure of every place ``[N, P]``."""
        if self.weight is None:
            return found.mean(1)
        weight = self.weight.to(found)
        return (found * weight).sum(1) / weight.sum(1).clamp_min(1)

    def total(self, found: Tensor) -> Tensor:
        """Sum over all places of all samples that count, of a figure of every place ``[N, P]``."""
        return found.sum() if self.weight is None else (found * self.weight.to(found)).sum()


def named(output: Any, name: str) -> Any:
    """A part of an output: an attribute, a key, or a place in a tuple or list. Dots lead further in.

    Raises:
        TypeError: it has none of that name; with those that it has.
    """
    found = output
    for part in name.split("."):
        if isinstance(found, Mapping):
            inner = found.get(part)
        elif isinstance(found, list | tuple) and part.lstrip("-").isdecimal():
            inner = found[int(part)] if -len(found) <= int(part) < len(found) else None
        else:
            inner = getattr(found, part, None)
        if inner is None:
            raise TypeError(f"the model's {type(found).__name__} has no '{part}'; it has {_parts(found)}")
        found = inner
    return found


def _parts(found: Any) -> str:
    """What an output is made of, in words."""
    if isinstance(found, list | tuple):
        return f"{len(found)} parts, from 0"
    names = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
    return ", ".join(list(names)[:8]) or "none"


def by_name(names: Sequence[str]) -> Reader:
    """Reads the parts of these names, each a tensor or a tree of them."""

    def read(output: Any, inputs: Inputs) -> Sequence[Tensor]:
        found = [t for name in names for t in tensors_of(named(output, name))]
        if not found:
            raise TypeError(f"the model's {', '.join(names)} holds no tensor")
        return found

    return read


def either(*names: str, what: str) -> Reader:
    """Reads a tensor, or the first of these parts that an object or a dict has, or the only one there is.

    Raises:
        TypeError: from the reader: it has none of these, and several others or none.
    """

    def read(output: Any, inputs: Inputs) -> Sequence[Tensor]:
        if isinstance(output, Tensor):
            return (output,)
        found = _held(output, names)
        # A loss beside it is a single number.
        every = [t for t in tensors_of(output) if t.is_floating_point() and t.ndim]
        if not found and len(every) != 1:
            raise TypeError(
                f"the model returns a {type(output).__name__} ({_parts(output)}) without {names[0]}; name "
                f"what counts with outputs=, or wrap it in a module that returns {what}"
            )
        return tuple(found or every)[:1]

    return read


def _held(output: Any, names: Sequence[str]) -> list[Tensor]:
    """Tensors that an object or a dict has by these names."""
    get = output.get if isinstance(output, Mapping) else partial(getattr, output)
    return [t for t in (get(name, None) for name in names) if isinstance(t, Tensor)]


def everything(output: Any, inputs: Inputs) -> Sequence[Tensor]:
    """Every tensor of floating-point numbers with as many samples as the inputs have.

    Of a detector of torchvision's, those of its heads.

    Raises:
        TypeError: there is none.
    """
    samples, output = samples_in(inputs), getattr(output, "heads", output)
    found = [t for t in tensors_of(output) if t.is_floating_point() and t.ndim and len(t) == samples]
    if not found:
        raise TypeError(
            f"the model returns a {type(output).__name__} without a tensor of {samples} samples; name what "
            "counts with outputs="
        )
    return found


def embeddings(output: Any, inputs: Inputs) -> Sequence[Tensor]:
    """One vector a sample where tokens are handed back: the mean over the real ones; else what is there.

    So sentence encoders are read; what else an object holds is named with ``outputs``.
    """
    held = _held(output, ("sentence_embedding", "image_embeds", "text_embeds", "last_hidden_state"))
    if not held:
        return everything(output, inputs)
    found, mask = held[0], mask_of(inputs)
    if found.ndim != 3:
        return (found.flatten(2).mean(2) if found.ndim > 3 else found,)
    if mask is None or mask.shape != found.shape[:2]:
        return (found.mean(1),)
    weight = mask.to(found).unsqueeze(2)
    return ((found * weight).sum(1) / weight.sum(1).clamp_min(1),)
