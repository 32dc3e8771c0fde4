"""Collectors: hooks that turn activations into statistics while a batch passes, and keep nothing else."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coprune.distributed.collectives import Parts, merged
from coprune.groups import ChannelGroup, unit_axis
from coprune.statistics.moments import Moments, batch_moments, to_grid
from coprune.statistics.requirements import ClassMoments
from coprune.tracing.patches import pick_channels


class Collector(Protocol):
    """Gathers one statistic over the batches of a pass."""

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Put hooks on the model."""
        ...

    def start_batch(self, labels: Tensor, *, start: int) -> None:
        """Told before every batch.

        Args:
            labels: ``[N]``, on the model's device.
            start: number of the batch's first sample among all; other processes may have those before it.
        """
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What was gathered by all processes, by name, on the CPU; every process must ask."""
        ...


NARROW = 4096
"""Values a sample of a group up to which it waits for the other groups of the batch: a few hundred small
operations a batch cost more than the same sums in one piece."""


class GroupMoments:
    """Class-conditional moments of values that come batch by batch, by group; the base of collectors."""

    def __init__(self, *, classes: int) -> None:
        self._classes = classes
        self._present = self._labels = torch.empty(0, dtype=torch.int64)
        self._waiting: dict[str, Tensor] = {}
        self._shapes: dict[str, torch.Size] = {}
        self._found: dict[tuple[str, ...], Moments] = {}

    def start_batch(self, labels: Tensor, *, start: int) -> None:
        """See :class:`Collector`."""
        self._take_waiting()
        # Only classes of the batch are touched, so that a batch costs the same however many there are.
        self._present, self._labels = labels.unique(return_inverse=True)

    def merge(self, group: ChannelGroup, values: Tensor) -> None:
        """Take in the values of a batch, ``[N, U, cells]``; of every group once."""
        self._shapes[group.name] = values.shape[1:]
        if values[0].numel() > NARROW:
            self._take((group.name,), values)
        else:
            # A copy: what comes next in the network may work in place.
            self._waiting[group.name] = values.flatten(1).clone()

    def _take_waiting(self) -> None:
        if self._waiting:
            self._take(tuple(self._waiting), torch.cat(list(self._waiting.values()), 1).unsqueeze(2))
            self._waiting = {}

    def _take(self, names: tuple[str, ...], values: Tensor) -> None:
        batch = batch_moments(values, self._labels, classes=len(self._present))
        if names not in self._found:
            self._found[names] = Moments.none(self._classes, values.shape[1:], device=values.device)
        self._found[names].add_(batch, self._present)

    def tensors(self) -> dict[str, Tensor]:
        """``NAME/count``, ``NAME/mean`` and ``NAME/m2`` of every group."""
        self._take_waiting()
        mine: dict[str, Parts] = {}
        for names, moments in self._found.items():
            sizes = [self._shapes[name].numel() for name in names]
            mean, m2 = (t.flatten(1).split(sizes, 1) for t in (moments.mean, moments.m2))
            for name, *parts in zip(names, mean, m2, strict=True):
                shape = (self._classes, *self._shapes[name])
                mine[name] = {"count": moments.count} | {
                    key: part.reshape(shape) for key, part in zip(("mean", "m2"), parts, strict=True)
                }
        found = merged(mine, _both)
        return {f"{name}/{part}": t.cpu() for name, parts in found.items() for part, t in parts.items()}


def _both(a: Parts, b: Parts) -> Parts:
    return vars(Moments(**a).merge(Moments(**b)))


class MomentsCollector(GroupMoments):
    """Class-conditional moments of every group, see :class:`coprune.statistics.moments.Moments`.

    Coupled groups have no one producer whose output were theirs: they are looked at where they are read.
    """

    def __init__(self, wanted: ClassMoments, groups: tuple[ChannelGroup, ...], *, classes: int) -> None:
        super().__init__(classes=classes)
        self._wanted, self._groups = wanted, groups

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        handles = []
        for group in self._groups:
            coupled = group.kind == "coupled"
            if self._wanted.at == "consumer" or coupled:
                # A group that several layers read is described by what the first of them reads; a
                # stream by what the last reads, which has everything that was added to it.
                name, channels = list(group.channels("consumer").items())[-1 if coupled else 0]

                def read(
                    layer: nn.Module,
                    inputs: tuple[Tensor, ...],
                    group: ChannelGroup = group,
                    channels: Tensor = channels,
                ) -> None:
                    self._add(group, layer, inputs[0].detach(), channels)

                handles.append(model.get_submodule(name).register_forward_pre_hook(read))
            else:
                channels = group.channels("producer")[group.name]

                def made(
                    layer: nn.Module,
                    inputs: tuple[Tensor, ...],
                    output: Tensor,
                    group: ChannelGroup = group,
                    channels: Tensor = channels,
                ) -> None:
                    self._add(group, layer, output.detach(), channels)

                handles.append(model.get_submodule(group.name).register_forward_hook(made))
        return handles

    def _add(self, group: ChannelGroup, layer: nn.Module, activation: Tensor, channels: Tensor) -> None:
        axis = unit_axis(layer)
        own = pick_channels(activation, channels.flatten(), axis=axis)
        cells = to_grid(own, units=group.size, grid=self._wanted.grid or None, last=axis == -1)
        # The channels of a block are so many more cells of one unit.
        self.merge(group, cells.reshape(len(cells), group.size, -1))
