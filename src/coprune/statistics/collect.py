"""Collect every declared statistic of a model's groups, each once, in one pass over the samples.

A statistic is a value: the method that needs it declares it, and it defines how it is collected and
what is read of it for a group (:class:`Statistic`). A new one is one file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.sharding import OwnBatch, own_batches, own_steps
from coprune.distributed.collectives import Parts, merged
from coprune.distributed.world import own
from coprune.errors import UserError
from coprune.groups import ChannelGroup
from coprune.measure.evaluation import CLASSIFICATION, check_finite, check_labels, check_outputs
from coprune.progress import track
from coprune.statistics.moments import merge
from coprune.task import Task
from coprune.tracing.forward import Inputs, moved, run, samples_in

T = TypeVar("T")
S = TypeVar("S", covariant=True)

Reads = Literal["nothing", "loss", "classes"]
"""What a statistic needs beside inputs: ``nothing``; targets that a ``loss`` can be taken on; ``classes``, a
number a sample, with samples of each."""


@dataclass(frozen=True)
class Calibration:
    """A model, its groups and the samples that describe them: all that a statistic is collected from.

    Attributes:
        model: unpruned.
        groups: the units to describe.
        source: calibration samples.
        classes: number of classes ``C`` of the data; None without class numbers.
        batch_size: samples of a pass.
        backward_size: of one with a backward pass; 0: as many.
        device: where to compute.
        label: of the progress bars.
        task: what the outputs mean.
    """

    model: nn.Module
    groups: tuple[ChannelGroup, ...]
    source: Source
    classes: int | None
    batch_size: int = 250
    device: str = "cpu"
    label: str = "profile"
    task: Task = CLASSIFICATION
    backward_size: int = 0
    _made: dict[Callable[[Calibration], Any], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def class_count(self) -> int:
        """``C``.

        Raises:
            UserError: the data has no class numbers.
        """
        if self.classes is None:
            raise UserError(
                f"this method describes classes, and the task '{self.task.name}' has none; take one that "
                "reads no labels, such as complementary"
            )
        return self.classes

    @property
    def backward(self) -> int:
        """Samples of a pass with a backward pass."""
        return self.backward_size or self.batch_size

    def ready(self) -> nn.Module:
        """The model on its device, in evaluation mode."""
        return self.model.to(self.device).eval()

    def batches(
        self, what: str = "", *, size: int = 0, chosen: Sequence[int] | None = None
    ) -> Iterator[OwnBatch]:
        """One pass: the batches of this process, on the device, with progress.

        Args:
            what: the pass is for, behind the label.
            size: samples of a batch; 0: ``batch_size``.
            chosen: numbers of the batches to take, ascending; None: all.

        """
        size = size or self.batch_size
        steps = own_steps(self.source, size) if chosen is None else len(own(chosen))
        own_ones = own_batches(self.source, size, chosen=chosen)
        for batch in track(own_ones, label=", ".join(filter(None, (self.label, what))), total=steps):
            yield OwnBatch(*batch[:2], *(moved(part, self.device) for part in batch[2:]))

    def loss(self, model: nn.Module, inputs: Inputs, targets: Any) -> Tensor:
        """The task's loss of a batch, summed over its samples.

        Args:
            model: on the device.
            inputs, targets: a batch, on the device.

        Raises:
            UserError: labels outside the classes of data or model, NaN or Inf in the outputs.
        """
        output = run(model, inputs)
        outputs = self.task.read(output, inputs)
        if self.task.classifies:
            check_labels(targets, self.classes)
            check_outputs(outputs.tensors[0], targets)
        for tensor in outputs.tensors:
            check_finite(tensor.detach())
        return self.task.loss_of(output, inputs, targets) * samples_in(inputs)

    def once(self, make: Callable[[Calibration], T]) -> T:
        """What several statistics need, made by the first that asks."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]


class Collector(Protocol):
    """Gathers one statistic over the batches of the common pass."""

    def attached(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the context, hooks on the model see what passes."""

    def start_batch(self, batch: OwnBatch) -> None:
        """Called before every batch, which is on the model's device."""

    def tensors(self) -> dict[str, Tensor]:
        """What all processes gathered, by name, on the CPU; every process must ask."""


class Gatherer:
    """The base of collectors: parts by name, merged batch by batch (:mod:`coprune.statistics.moments`)."""

    def __init__(self) -> None:
        self._found: dict[str, Parts] = {}
        self._number = -1

    def start_batch(self, batch: OwnBatch) -> None:
        """See :class:`Collector`."""
        self._batch, self._samples = batch, samples_in(batch.inputs)
        self._number += 1

    def _take(self, name: str, parts: Parts) -> None:
        self._found[name] = merge(self._found[name], parts) if name in self._found else parts

    def tensors(self) -> dict[str, Tensor]:
        """``NAME/PART``; see :class:`Collector`."""
        found = merged(self._found, merge)
        return {f"{name}/{part}": t.cpu() for name, parts in found.items() for part, t in parts.items()}


class Readable(Protocol[S]):
    """What was collected can be read of every group."""

    @property
    def key(self) -> str:
        """Name of the statistic's file."""

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> S:
        """What was collected of one group."""


class Statistic(Readable[Any], Protocol):
    """What a method may ask to see of every group."""

    @property
    def reads(self) -> Reads:
        """What it needs beside inputs."""

    def collect(self, calibration: Calibration) -> Mapping[str, Tensor] | Collector:
        """The statistic, name → tensor on the CPU, or what gathers it while the samples pass."""


@dataclass(frozen=True)
class Profile:
    """All statistics that a method may use.

    Attributes:
        groups: what can be removed.
        tensors: statistic key → name → tensor.
        device: where a method that computes much may compute.
    """

    groups: tuple[ChannelGroup, ...]
    tensors: Mapping[str, Mapping[str, Tensor]]
    device: str = "cpu"

    def of(self, wanted: Readable[T], group: ChannelGroup) -> T:
        """A statistic of one group."""
        return wanted.of_group(self.tensors[wanted.key], group)


def collect(calibration: Calibration, statistics: Iterable[Statistic]) -> dict[str, dict[str, Tensor]]:
    """Collect statistics; each process over its share of the samples, merged exactly.

    Args:
        calibration: what they are collected from; read only as far as a statistic needs it.
        statistics: several methods may ask for the same.

    Returns:
        Statistic key → name → tensor on the CPU, float64.

    Raises:
        UserError: labels outside the classes of data or model, where classes count; NaN or Inf in the model's
            output; importances of a model that cannot be traced.
    """
    wanted = {one.key: one for one in statistics}
    started = {key: one.collect(calibration) for key, one in wanted.items()}
    collectors = {key: c for key, c in started.items() if not isinstance(c, Mapping)}
    if collectors:
        model = calibration.ready()
        per_class = any(wanted[key].reads == "classes" for key in collectors)
        with ExitStack() as hooks, torch.no_grad():
            for collector in collectors.values():
                hooks.enter_context(collector.attached(model))
            for batch in calibration.batches():
                if per_class:
                    check_labels(batch.labels, calibration.classes)
                for collector in collectors.values():
                    collector.start_batch(batch)
                outputs = calibration.task.outputs(model, batch.inputs)
                if per_class:
                    check_outputs(outputs.tensors[0], batch.labels)
                for tensor in outputs.tensors:
                    check_finite(tensor)
    return {key: dict(c) if isinstance(c, Mapping) else c.tensors() for key, c in started.items()}
