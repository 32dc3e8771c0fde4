"""Collectors: hooks that turn activations into statistics while a batch passes, and keep nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coprune.profile.moments import Moments, batch_moments, to_grid
from coprune.profile.statistic import ClassMoments
from coprune.units import ChannelGroup, unit_axis


class Collector(Protocol):
    """Gathers one statistic over the batches of a pass."""

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Put hooks on the model."""
        ...

    def start_batch(self, labels: Tensor) -> None:
        """Told before every batch: ``[N]`` labels on the model's device."""
        ...

    def watched(self) -> list[Tensor]:
        """Tensors of this batch whose gradient of the summed loss is wanted; none as a rule."""
        ...

    def end_batch(self, gradients: Sequence[Tensor]) -> None:
        """Told after every batch: a gradient for each of :meth:`watched`."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What was gathered, by name, on the CPU."""
        ...


class MomentsCollector:
    """Class-conditional moments of every group, see :class:`coprune.profile.moments.Moments`."""

    def __init__(self, wanted: ClassMoments, groups: tuple[ChannelGroup, ...], *, classes: int) -> None:
        self._wanted, self._groups, self._classes = wanted, groups, classes
        self._labels = torch.empty(0, dtype=torch.int64)
        self._found: dict[str, Moments] = {}

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        handles = []
        for group in self._groups:
            if self._wanted.at == "consumer":
                # A group that several layers read is described by what the first of them reads.
                consumer = model.get_submodule(group.of_role("consumer")[0].layer)

                def read(layer: nn.Module, inputs: tuple[Tensor, ...], group: ChannelGroup = group) -> None:
                    self._add(group, layer, inputs[0].detach())

                handles.append(consumer.register_forward_pre_hook(read))
            else:

                def made(
                    layer: nn.Module,
                    inputs: tuple[Tensor, ...],
                    output: Tensor,
                    group: ChannelGroup = group,
                ) -> None:
                    self._add(group, layer, output.detach())

                handles.append(model.get_submodule(group.name).register_forward_hook(made))
        return handles

    def start_batch(self, labels: Tensor) -> None:
        self._labels = labels

    def watched(self) -> list[Tensor]:
        return []

    def end_batch(self, gradients: Sequence[Tensor]) -> None:
        pass

    def _add(self, group: ChannelGroup, layer: nn.Module, activation: Tensor) -> None:
        cells = to_grid(
            activation, units=group.size, grid=self._wanted.grid or None, last=unit_axis(layer) == -1
        )
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
    """Sum over samples of (∂loss/∂gate)² of every unit, with the number of samples.

    A gate of 1 a sample and unit is multiplied in wherever a consumer reads the unit; the gradients
    of a unit's gates at all its consumers add up.
    """

    def __init__(self, groups: tuple[ChannelGroup, ...]) -> None:
        self._groups = groups
        self._sums = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in groups}
        self._count = 0
        self._gates: list[tuple[str, Tensor]] = []

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        handles = []
        for group in self._groups:
            for member in group.of_role("consumer"):

                def gated(
                    layer: nn.Module, inputs: tuple[Tensor, ...], group: ChannelGroup = group
                ) -> tuple[Tensor, ...]:
                    x = inputs[0]
                    gate = torch.ones(len(x), group.size, dtype=x.dtype, device=x.device, requires_grad=True)
                    self._gates.append((group.name, gate))
                    return (_gated(x, gate, last=unit_axis(layer) == -1), *inputs[1:])

                handles.append(model.get_submodule(member.layer).register_forward_pre_hook(gated))
        return handles

    def start_batch(self, labels: Tensor) -> None:
        self._count += len(labels)
        self._gates = []

    def watched(self) -> list[Tensor]:
        return [gate for _, gate in self._gates]

    def end_batch(self, gradients: Sequence[Tensor]) -> None:
        totals: dict[str, Tensor] = {}
        for (name, _), gradient in zip(self._gates, gradients, strict=True):
            totals[name] = totals.get(name, 0) + gradient.double()
        for name, gradient in totals.items():
            # The loss is summed over samples, so each sample's gradient is its own.
            self._sums[name] += gradient.square().sum(0).cpu()
        self._gates = []

    def tensors(self) -> dict[str, Tensor]:
        found = {f"{name}/sum": total for name, total in self._sums.items()}
        return {**found, "count": torch.tensor([self._count], dtype=torch.float64)}


def _gated(x: Tensor, gate: Tensor, *, last: bool) -> Tensor:
    """Multiply every unit's values by its gate ``[N, U]``; ``x`` as in :func:`to_grid`."""
    if last:
        spread = gate.repeat_interleave(x.shape[-1] // gate.shape[1], dim=1)
        return x * spread.view(len(x), *[1] * (x.ndim - 2), -1)
    return x * gate.view(*gate.shape, *[1] * (x.ndim - 2))
