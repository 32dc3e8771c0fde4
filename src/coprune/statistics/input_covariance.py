"""What the consumers of a group read, and what an error of their outputs costs.

Shapes: ``U`` units, ``b`` values of a unit that a consumer reads at one place (kernel size, or pixels
of a flattened map), ``D = U·b``, ``O`` outputs of the consumer, ``C`` classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.groups import ChannelGroup, unit_axis
from coprune.layers import filters, is_linear, is_recurrent, samples_first
from coprune.statistics.collect import Calibration, Gatherer, Reads
from coprune.statistics.fisher import active_positions, output_sensitivity
from coprune.tracing.hooks import hooked
from coprune.tracing.patches import (
    centred_gram,
    draw_positions,
    draw_valid,
    output_positions,
    pick_channels,
    read_rows,
)

LARGEST = 8192
"""Values a consumer may read at a place (a covariance of half a gigabyte). Of a wider one, which reads
flattened maps, neighbouring pixels are averaged."""

ROWS = 8
"""Rows a column of a covariance, at least, where the samples have as many places: of fewer, small eigenvalues
are noise, and what is chosen by them as well."""


@dataclass(frozen=True)
class Consumer:
    """One consumer of a group, seen from the group's units.

    Attributes:
        layer: module name.
        weight: ``[O, D]`` float64, unit-major.
        mean: of what it reads, ``[D]``.
        covariance: ``[D, D]``.
        between: covariance of the class means, ``[D, D]``; None when it was not asked for.
        sensitivity: mean square of the gradient of the model's own log-likelihood by each output,
            over places and samples, ``[O]``: what a squared error of it costs (diagonal Fisher).
        channels: which of the layer's input channels are the units', ``[U, S]``; None: all, in order.
        rows: places and samples behind mean and covariance.
    """

    layer: str
    weight: Tensor
    mean: Tensor
    covariance: Tensor
    between: Tensor | None
    sensitivity: Tensor
    channels: Tensor | None = None
    rows: int = 0

    @property
    def fits_anything(self) -> bool:
        """Whether it reads no more rows than it has columns, so that a regression on them has no error."""
        return 0 < self.rows <= self.weight.shape[1]

    def without(self, rows: Tensor) -> Consumer:
        """As if some of the rows, ``[M, D]``, had not been seen; some others must be left."""
        left = self.rows - len(rows)
        # About the mean: where values hardly vary around a large one, their squares would hide how they do.
        apart = (rows.double() - self.mean).sum(0) / -left
        squares = self.rows * self.covariance - centred_gram(rows, self.mean)
        covariance = squares / left - apart.outer(apart)
        return replace(self, mean=self.mean + apart, covariance=covariance, rows=left)


@dataclass(frozen=True)
class ConsumerCovariance:
    """What the consumers of every group read: mean, covariance, weights, and what their errors cost.

    Attributes:
        places: positions of a sample that are drawn of each consumer.
        rows: a column of the covariance, at least; where samples are few more places of each are drawn.
        classes: whether class means are kept too.
    """

    places: int = 24
    rows: int = ROWS
    classes: bool = False

    @property
    def reads(self) -> Reads:
        """Classes, where class means are kept."""
        return "classes" if self.classes else "nothing"

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"consumer_covariance-{self.places}-{self.rows}{'-classes' if self.classes else ''}"

    def collect(self, calibration: Calibration) -> ConsumerCollector:
        """See :class:`coprune.statistics.Statistic`."""
        return ConsumerCollector(self, calibration)

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> tuple[Consumer, ...]:
        """The consumers of a group."""
        return tuple(_consumer(tensors, group, *item) for item in group.channels("consumer").items())


def _consumer(tensors: Mapping[str, Tensor], group: ChannelGroup, layer: str, channels: Tensor) -> Consumer:
    def part(name: str) -> Tensor:
        return tensors[f"{group.name}/{layer}/{name}"]

    between = None
    if f"{group.name}/{layer}/class_sum" in tensors:
        # Classes count the same, however many samples they have.
        there = part("class_count")
        means = (part("class_sum") / there.clamp_min(1).unsqueeze(1))[there > 0]
        means = means - means.mean(0)
        between = means.T @ means / len(means)
    weight, mean, m2, sensitivity, count = map(part, ("weight", "mean", "m2", "sensitivity", "count"))
    return Consumer(layer, weight, mean, m2 / count, between, sensitivity, channels, int(count))


def single_rows(layer: nn.Module, inputs: Tensor, output: Tensor, channels: Tensor) -> Tensor | None:
    """What a consumer reads of a group, ``[N, D]``, where it reads one place of every sample; else None.

    Args:
        layer: the consumer.
        inputs, output: of a batch; inputs ``[N, …]``.
        channels: which of its input channels are the units', ``[U, S]``.
    """
    if is_recurrent(layer) or output_positions(layer, output, samples=len(inputs)) != 1:
        return None
    at = torch.zeros(len(inputs), 1, dtype=torch.int64, device=inputs.device)
    return _rows(layer, inputs, channels, at)


def _rows(layer: nn.Module, inputs: Tensor, channels: Tensor, at: Tensor) -> Tensor:
    """What a layer reads of the units' channels at some places, ``[N·P, D]``."""
    rows = read_rows(layer, pick_channels(inputs, channels.flatten(), axis=unit_axis(layer)), at)
    return _narrow(rows, len(channels), total=False)


class ConsumerCollector(Gatherer):
    """Mean and covariance of what every consumer reads of the group at some positions of every sample.

    Every layer that reads a group is one consumer, wherever in its input the group lies; what it reads of
    other groups (behind a concatenation) is left out. Streamed, float64.
    """

    def __init__(self, wanted: ConsumerCovariance, calibration: Calibration) -> None:
        super().__init__()
        self._wanted, self._calibration = wanted, calibration
        self._sensitivity = calibration.once(output_sensitivity)
        self._active = calibration.once(active_positions)
        self._positions: dict[str, Tensor] = {}  # of all samples; drawing them costs more than a batch
        self._weights: dict[str, Tensor] = {}

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """See :class:`coprune.statistics.collect.Collector`."""
        hooks = []
        for group in self._calibration.groups:
            for name, channels in group.channels("consumer").items():
                key = f"{group.name}/{name}"
                weight = filters(model.get_submodule(name)).detach()[:, channels.flatten()]
                self._weights[key] = _narrow(weight.double().flatten(1), group.size, total=True).cpu()
                hooks.append((name, partial(self._add, key, channels)))
        with hooked(model, hooks):
            yield

    def _add(
        self, key: str, channels: Tensor, layer: nn.Module, inputs: Sequence[Tensor], output: Tensor
    ) -> None:
        read = samples_first(layer, inputs[0].detach())
        at = self._at(key, layer, read, read if is_recurrent(layer) else output).to(read.device)
        rows = _rows(layer, read, channels, at)
        mean = rows.mean(0, dtype=torch.float64)
        batch = {"count": mean.new_tensor(float(len(rows))), "mean": mean, "m2": centred_gram(rows, mean)}
        if self._wanted.classes:
            each = at.numel() // self._samples
            of_rows = self._batch.labels.repeat_interleave(each)
            labels = F.one_hot(of_rows, self._calibration.class_count).double()
            batch |= {"class_count": labels.sum(0), "class_sum": labels.T @ rows.double()}
        self._take(key, batch)

    def _at(self, key: str, layer: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
        """The positions of this batch, ``[B, P]``."""
        few = math.ceil(self._wanted.rows * self._weights[key].shape[1] / len(self._calibration.source))
        wanted = max(self._wanted.places, few)
        if key in self._active:
            # Batches of texts are of different widths, so each draws its own.
            valid = self._active[key][self._number]
            return draw_valid(f"{key}/{self._batch.start}", valid, wanted=wanted, seed=0)
        # To a convolution, a window of a sample is a sample.
        each = 1 if is_linear(layer) else len(inputs) // self._samples
        rows = each * self._samples
        if key not in self._positions:
            samples = each * len(self._calibration.source)
            places = output_positions(layer, output, samples=rows)
            self._positions[key] = draw_positions(key, samples=samples, places=places, wanted=wanted, seed=0)
        return self._positions[key][each * self._batch.start :][:rows]

    def tensors(self) -> dict[str, Tensor]:
        """See :class:`coprune.statistics.collect.Collector`."""
        weights = {f"{key}/weight": weight for key, weight in self._weights.items()}
        return {**weights, **super().tensors(), **self._sensitivity}


def _narrow(values: Tensor, units: int, *, total: bool) -> Tensor:
    """Average (or sum) neighbouring values of a unit until a row ``[…, D]`` is no longer than allowed."""
    each = values.shape[-1] // units
    cells = next((c for c in range(each, 0, -1) if each % c == 0 and units * c <= LARGEST), 1)
    if cells == each:
        return values
    parts = values.unflatten(-1, (units, cells, each // cells))
    return (parts.sum(-1) if total else parts.mean(-1)).flatten(-2)
