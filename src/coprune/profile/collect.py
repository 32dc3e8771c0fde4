"""Collectors: hooks that turn activations into statistics while a batch passes, and keep nothing else."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coprune.profile.moments import Moments, batch_moments, to_grid
from coprune.profile.rows import pick_channels
from coprune.profile.statistic import ClassMoments
from coprune.ranks.exchange import Parts, merged
from coprune.units import ChannelGroup, unit_axis


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


class GroupMoments:
    """Class-conditional moments of values that come batch by batch, by group; the base of collectors."""

    def __init__(self, *, classes: int) -> None:
        self._classes = classes
        self._labels = torch.empty(0, dtype=torch.int64)
        self._found: dict[str, Moments] = {}

    def start_batch(self, labels: Tensor, *, start: int) -> None:
        """See :class:`Collector`."""
        self._labels = labels

    def merge(self, group: ChannelGroup, values: Tensor) -> None:
        """Take in the values of a batch, ``[N, U, cells]``."""
        batch = batch_moments(values, self._labels, classes=self._classes)
        before = self._found.get(group.name)
        self._found[group.name] = before.merge(batch) if before else batch

    def tensors(self) -> dict[str, Tensor]:
        """``NAME/count``, ``NAME/mean`` and ``NAME/m2`` of every group."""
        found = merged({name: vars(moments) for name, moments in self._found.items()}, _both)
        return {f"{name}/{part}": t.cpu() for name, parts in found.items() for part, t in parts.items()}


def _both(a: Parts, b: Parts) -> Parts:
    return vars(Moments(**a).merge(Moments(**b)))


class MomentsCollector(GroupMoments):
    """Class-conditional moments of every group, see :class:`coprune.profile.moments.Moments`.

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
