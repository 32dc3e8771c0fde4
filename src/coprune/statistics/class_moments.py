"""Class-conditional moments of every unit, gathered by hooks while the batches pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from coprune.data.sharding import OwnBatch
from coprune.groups import ChannelGroup, unit_axis
from coprune.statistics.collect import Calibration, Gatherer, Reads
from coprune.statistics.moments import Moments, batch_moments, to_grid
from coprune.tracing.hooks import Hook, hooked
from coprune.tracing.patches import pick_channels

Where = Literal["consumer", "producer"]
"""Where activations are read: ``consumer``, what the next layer reads (behind batch norm, activation
and pooling); ``producer``, what the layer itself puts out. *Open* in CoSeP."""

NARROW = 4096
"""Values a sample of a group up to which it waits for the other groups of the batch: a few hundred small
operations a batch cost more than the same sums in one piece."""


@dataclass(frozen=True)
class ClassMoments:
    """Class-conditional means and variances of every unit.

    Attributes:
        grid: cells a side of the pixel grid; 1 is the average over all pixels, 0 every pixel.
        at: where the activation is read.
    """

    grid: int = 1
    at: Where = "consumer"
    reads: ClassVar[Reads] = "classes"

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"class_moments-{self.at}-grid{self.grid}"

    def collect(self, calibration: Calibration) -> MomentsCollector:
        """See :class:`coprune.statistics.Statistic`."""
        return MomentsCollector(self, calibration.groups, classes=calibration.class_count)

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> Moments:
        """Moments ``[C, U, G]`` of a group."""
        return Moments.named(tensors, group.name)


class GroupMoments(Gatherer):
    """Class-conditional moments of values that come batch by batch, by group; the base of collectors.

    Args:
        wanted: the statistic.
        groups: whose values come.
        classes: ``C``.
    """

    def __init__(self, wanted: Any, groups: tuple[ChannelGroup, ...], *, classes: int) -> None:
        super().__init__()
        self._wanted, self._groups, self._classes = wanted, groups, classes
        self._waiting: dict[str, Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}
        self._sums: dict[tuple[str, ...], Moments] = {}

    def start_batch(self, batch: OwnBatch) -> None:
        """See :class:`coprune.statistics.collect.Collector`."""
        self._take_waiting()
        super().start_batch(batch)
        # Only classes of the batch are touched, so that a batch costs the same however many there are.
        self._present, self._labels = batch.labels.unique(return_inverse=True)

    def add(self, group: ChannelGroup, values: Tensor) -> None:
        """Take in the values of a batch, ``[N, U, cells]``; of every group once."""
        self._shapes[group.name] = values.shape[1:]
        if values[0].numel() > NARROW:
            self._sum((group.name,), values)
        else:
            # A copy: what comes next in the network may work in place.
            self._waiting[group.name] = values.flatten(1).clone()

    def _take_waiting(self) -> None:
        if self._waiting:
            self._sum(tuple(self._waiting), torch.cat(list(self._waiting.values()), 1).unsqueeze(2))
            self._waiting = {}

    def _sum(self, names: tuple[str, ...], values: Tensor) -> None:
        batch = batch_moments(values, self._labels, classes=len(self._present))
        if names not in self._sums:
            self._sums[names] = Moments.none(self._classes, values.shape[1:], device=values.device)
        self._sums[names].add_(batch, self._present)

    def tensors(self) -> dict[str, Tensor]:
        """``NAME/count``, ``NAME/mean`` and ``NAME/m2`` of every group."""
        self._take_waiting()
        for names, moments in self._sums.items():
            sizes = [self._shapes[name].numel() for name in names]
            parts = (t.flatten(1).split(sizes, 1) for t in (moments.mean, moments.m2))
            for name, mean, m2 in zip(names, *parts, strict=True):
                shape = (self._classes, *self._shapes[name])
                mine = {"count": moments.count, "mean": mean.reshape(shape), "m2": m2.reshape(shape)}
                self._found[name] = mine
        return super().tensors()


class MomentsCollector(GroupMoments):
    """Class-conditional moments of every group, see :class:`coprune.statistics.moments.Moments`.

    Coupled groups have no one producer whose output were theirs: they are described where they are read.
    """

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """See :class:`coprune.statistics.collect.Collector`."""
        read: list[tuple[str, Hook]] = []
        put_out: list[tuple[str, Hook]] = []
        for group in self._groups:
            coupled = group.kind == "coupled"
            if self._wanted.at == "consumer" or coupled:
                # A group that several layers read is described by what the first of them reads; a
                # stream by what the last reads, which has everything that was added to it.
                name, channels = list(group.channels("consumer").items())[-1 if coupled else 0]
                read.append((name, partial(self._see, group, channels.flatten())))
            else:
                channels = group.channels("producer")[group.name]
                put_out.append((group.name, partial(self._see, group, channels.flatten())))
        with hooked(model, read, before=True), hooked(model, put_out):
            yield

    def _see(self, group: ChannelGroup, channels: Tensor, layer: nn.Module, *passed: Any) -> None:
        """``passed``: the layer's inputs and, behind it, its output."""
        activation = passed[-1] if isinstance(passed[-1], Tensor) else passed[-1][0]
        axis = unit_axis(layer)
        own = pick_channels(activation.detach(), channels, axis=axis)
        cells = to_grid(own, units=group.size, grid=self._wanted.grid or None, last=axis == -1)
        # The channels of a block are so many more cells of one unit.
        self.add(group, cells.reshape(len(cells), group.size, -1))
