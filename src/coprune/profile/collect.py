"""Collectors: hooks that turn activations into statistics while a batch passes, and keep nothing else."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coprune.profile.moments import Moments, batch_moments, to_grid
from coprune.profile.statistic import ClassMoments
from coprune.units import ChannelGroup


class Collector(Protocol):
    """Gathers one statistic over the batches of a pass."""

    needs_gradients: bool

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Put hooks on the model."""
        ...

    def start_batch(self, labels: Tensor) -> None:
        """Told before every batch: ``[N]`` labels on the model's device."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What was gathered, by name, on the CPU."""
        ...


class MomentsCollector:
    """Class-conditional moments of every group, see :class:`coprune.profile.moments.Moments`."""

    needs_gradients = False

    def __init__(self, wanted: ClassMoments, groups: tuple[ChannelGroup, ...], *, classes: int) -> None:
        self._wanted, self._groups, self._classes = wanted, groups, classes
        self._labels = torch.empty(0, dtype=torch.int64)
        self._found: dict[str, Moments] = {}

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        handles = []
        for group in self._groups:
            if self._wanted.at == "consumer":
                # All consumers of a group read the same tensor; the first one will do.
                member = group.of_role("consumer")[0]

                def read(_: nn.Module, inputs: tuple[Tensor, ...], group: ChannelGroup = group) -> None:
                    self._add(group, inputs[0].detach())

                handles.append(model.get_submodule(member.layer).register_forward_pre_hook(read))
            else:

                def made(
                    _: nn.Module,
                    inputs: tuple[Tensor, ...],
                    output: Tensor,
                    group: ChannelGroup = group,
                ) -> None:
                    self._add(group, output.detach())

                handles.append(model.get_submodule(group.name).register_forward_hook(made))
        return handles

    def start_batch(self, labels: Tensor) -> None:
        self._labels = labels

    def _add(self, group: ChannelGroup, activation: Tensor) -> None:
        cells = to_grid(activation, units=group.size, grid=self._wanted.grid or None)
        batch = batch_moments(cells, self._labels, classes=self._classes)
        before = self._found.get(group.name)
        self._found[group.name] = before.merge(batch) if before else batch

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}/{part}": getattr(moments, part).cpu()
            for name, moments in self._found.items()
            for part in ("count", "mean", "m2")
        }


class GateGradientCollector:
    """Sum over samples of (∂loss/∂gate)² of every unit, with the number of samples."""

    needs_gradients = True

    def __init__(self, groups: tuple[ChannelGroup, ...]) -> None:
        self._groups = groups
        self._sums = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in groups}
        self._count = 0

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        handles = []
        for group in self._groups:
            member = group.of_role("consumer")[0]

            def read(_: nn.Module, inputs: tuple[Tensor, ...], group: ChannelGroup = group) -> None:
                x = inputs[0]
                value = x.detach()
                x.register_hook(lambda gradient: self._add(group, value, gradient))

            handles.append(model.get_submodule(member.layer).register_forward_pre_hook(read))
        return handles

    def start_batch(self, labels: Tensor) -> None:
        self._count += len(labels)

    def _add(self, group: ChannelGroup, value: Tensor, gradient: Tensor) -> None:
        # The loss is summed over samples, so each sample's gradient is its own.
        gate = (value * gradient).reshape(len(value), group.size, -1).sum(2, dtype=torch.float64)
        self._sums[group.name] += gate.square().sum(0).cpu()

    def tensors(self) -> dict[str, Tensor]:
        found = {f"{name}/sum": total for name, total in self._sums.items()}
        return {**found, "count": torch.tensor([self._count], dtype=torch.float64)}
