"""Samples of any kind, held in memory: several inputs, named ones, images and texts of their own sizes.

Shapes: ``N`` samples, ``B`` of a batch, ``M`` of those taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves

from coprune.data.source import Batch, MemorySource, Part, digest, drawn_order, not_finite
from coprune.tracing.forward import Inputs, copied, joined, part_of, samples_in, shapes_of


def form_of(tree: Any) -> str:
    """What two batches have in common that can be one: structure, types, and shapes without the samples."""
    if isinstance(tree, list):
        return "list"
    leaves, structure = tree_flatten(tree)
    kinds = [(tuple(t.shape[1:]), t.dtype) if isinstance(t, Tensor) and t.ndim else t for t in leaves]
    return f"{structure} {kinds}"


def alike(parts: Sequence[Inputs]) -> list[Inputs]:
    """Of some batches those that can be one: of the form of which there are most samples."""
    groups: dict[str, list[Inputs]] = {}
    for part in parts:
        groups.setdefault(form_of(part), []).append(part)
    return max(groups.values(), key=lambda group: sum(map(samples_in, group)))


@dataclass(frozen=True)
class TreeSource(MemorySource):
    """Samples in chunks of one shape each, which no batch mixes; make one with :meth:`of`.

    Attributes:
        chunks: inputs and targets ``[n, …]``, the samples of one after those of the other.
        labels: ``[N]`` int64, the targets of all chunks where they are class numbers; else None.
        name: what messages call it, e.g. ``calibration=``, where somebody gave it a name.
    """

    chunks: tuple[Batch, ...]
    labels: Tensor | None = None
    name: str = ""

    @staticmethod
    def of(batches: Sequence[Batch], *, labelled: bool = False, name: str = "") -> TreeSource:
        """Batches of one form become one chunk, in the order of their first ones.

        Args:
            batches: at least one, of any sizes.
            labelled: targets are class numbers ``[B]``.
            name: see the attributes.
        """
        groups: dict[str, list[Batch]] = {}
        for inputs, targets in batches:
            groups.setdefault(f"{form_of(inputs)} → {form_of(targets)}", []).append((inputs, targets))
        chunks = tuple((joined([x for x, _ in g]), joined([y for _, y in g])) for g in groups.values())
        return TreeSource(chunks, torch.cat([y for _, y in chunks]) if labelled else None, name)

    @property
    def _ends(self) -> list[int]:
        """Numbers of the first samples of all chunks, and ``N``."""
        return [0, *accumulate(samples_in(inputs) for inputs, _ in self.chunks)]

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def input_shape(self) -> Any:
        """Of the first sample: of one tensor its shape; of several, name (or place) → shape."""
        inputs = self.chunks[0][0]
        if isinstance(inputs, list) and inputs and isinstance(inputs[0], Tensor):
            return tuple(inputs[0].shape)
        return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else shapes_of(inputs)

    def take(self, index: Tensor) -> TreeSource:
        """The samples with the given indices ``[M]``, those of one chunk after those of the other."""
        inside = [index[(index >= first) & (index < last)] for first, last in pairwise(self._ends)]
        some = [number for number, at in enumerate(inside) if len(at)] or [0]
        chunks = []
        for number in some:
            at = inside[number] - self._ends[number]
            inputs, targets = self.chunks[number]
            chunks.append((part_of(inputs, at), part_of(targets, at)))
        labels = None if self.labels is None else self.labels[torch.cat([inside[number] for number in some])]
        return replace(self, chunks=tuple(chunks), labels=labels)

    def numbered(self) -> TreeSource:
        """With the numbers of the samples for targets."""
        numbers = (torch.arange(first, last) for first, last in pairwise(self._ends))
        chunks = tuple((inputs, number) for (inputs, _), number in zip(self.chunks, numbers, strict=True))
        return replace(self, chunks=chunks, labels=None)

    def fingerprint(self) -> str:
        """A digest of inputs and targets: the same samples in the same chunks give the same text."""
        parts: list[str | Tensor] = []
        for leaf in tree_leaves(self.chunks):
            if isinstance(leaf, Tensor):
                parts += (str((tuple(leaf.shape), leaf.dtype)), leaf)
            else:
                parts.append(repr(leaf))
        return digest(*parts)

    def validation_error(self) -> str | None:
        """See :class:`~coprune.data.source.MemorySource`."""
        return next(filter(None, (not_finite(inputs) for inputs, _ in self.chunks)), None)

    def incompatibility(self, heldout: TreeSource) -> str | None:
        """See :class:`~coprune.data.source.MemorySource`; sizes may differ unless samples have classes."""
        mine, theirs = (_kind(s.chunks[0][0], exact=s.labels is not None) for s in (self, heldout))
        if mine == theirs:
            return None
        return f"training samples are {mine} but held-out samples are {theirs}; they must have one shape"

    def _at(self, index: Tensor) -> tuple[Batch, Tensor]:
        """The chunk of a batch, and the places of its samples in there."""
        number = sum(int(index[0]) >= end for end in self._ends[1:])
        return self.chunks[number], index - self._ends[number]

    def inputs(self, parts: Sequence[Part], draw: Callable[[int], int] | None = None) -> Iterator[Inputs]:
        """See :class:`~coprune.data.source.MemorySource`; nothing is augmented."""
        for part in parts:
            (inputs, _), at = self._at(part.index)
            found = part_of(inputs, at[part.own])
            yield copied(found) if isinstance(found, list) else found

    def targets(self, index: Tensor) -> Any:
        """See :class:`~coprune.data.source.MemorySource`; of samples of one chunk."""
        (_, targets), at = self._at(index)
        return part_of(targets, at)

    def in_order(self, batch_size: int) -> Sequence[Tensor]:
        """See :class:`~coprune.data.source.MemorySource`."""
        return [at for ends in pairwise(self._ends) for at in torch.arange(*ends).split(batch_size)]

    def _drawn(self, fraction: float) -> list[int]:
        """How many samples of every chunk an epoch takes, all together ``fraction`` of them."""
        ends = [round(fraction * end) for end in self._ends]
        return [b - a for a, b in pairwise([*ends[:-1], max(1, ends[-1])])]

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        """See :class:`~coprune.data.source.Source`."""
        return sum(-(-count // batch_size) for count in self._drawn(fraction))

    def order(self, batch_size: int, *, seed: int, epoch: int, fraction: float) -> Sequence[Tensor]:
        """See :class:`~coprune.data.source.MemorySource`; chunks take turns by chance."""
        parts: list[Tensor] = []
        for (first, last), count in zip(pairwise(self._ends), self._drawn(fraction), strict=True):
            drawn, generator = drawn_order(last - first, seed=seed, epoch=epoch, fraction=1)
            parts += (first + drawn[:count]).split(batch_size) if count else ()
        if len(self.chunks) == 1:
            return parts
        return [parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()]


def _kind(inputs: Inputs, *, exact: bool) -> str:
    """What a model takes, in words: shapes, or how many axes there are."""
    if isinstance(inputs, Tensor):
        return str(list(inputs.shape[1:])) if exact else f"{inputs.ndim - 1} axes of {inputs.dtype}"
    if isinstance(inputs, list):
        return "a list"
    return ", ".join(f"{name} {s if exact else [None] * len(s)}" for name, s in shapes_of(inputs).items())
