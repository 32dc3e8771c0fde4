"""What the consumers of a group read, and what an error of their outputs costs.

Shapes: ``U`` units, ``b`` values of a unit that a consumer reads at one place (kernel size, or pixels
of a flattened map), ``D = U·b``, ``O`` outputs of the consumer, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coprune.distributed.collectives import Parts, merged
from coprune.groups import ChannelGroup, unit_axis
from coprune.layers import filters, is_linear
from coprune.statistics.requirements import ConsumerCovariance
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
    """

    layer: str
    weight: Tensor
    mean: Tensor
    covariance: Tensor
    between: Tensor | None
    sensitivity: Tensor
    channels: Tensor | None = None


class ConsumerCollector:
    """Mean and covariance of what every consumer reads of the group at some places of every sample.

    Every layer that reads a group is one consumer, wherever in its input the group lies; what it reads of
    other groups (behind a concatenation) is left out.

    Streamed as (count, mean, M2) and merged as Chan et al. (1983) do, float64.
    """

    def __init__(
        self,
        wanted: ConsumerCovariance,
        groups: tuple[ChannelGroup, ...],
        *,
        samples: int,
        classes: int,
        reached: Mapping[str, Sequence[Tensor]],
    ) -> None:
        self._wanted, self._groups, self._samples, self._classes = wanted, groups, samples, classes
        self._reached = reached
        self._labels = torch.empty(0, dtype=torch.int64)
        self._start, self._batch = 0, -1
        self._places: dict[str, Tensor] = {}  # of all samples; drawing them costs more than a batch
        self._weights: dict[str, Tensor] = {}
        self._found: dict[str, Parts] = {}

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        handles = []
        for group in self._groups:
            for name, channels in group.channels("consumer").items():
                layer = model.get_submodule(name)
                columns = channels.flatten()
                key = f"{group.name}/{name}"

                def read(
                    layer: nn.Module,
                    inputs: tuple[Tensor, ...],
                    output: Tensor,
                    key: str = key,
                    columns: Tensor = columns,
                    group: ChannelGroup = group,
                ) -> None:
                    self._add(key, layer, inputs[0].detach(), output, columns, group.size)

                handles.append(layer.register_forward_hook(read))
                weight = filters(layer).detach()[:, columns].double().flatten(1)
                self._weights[key] = _narrow(weight, group.size, total=True).cpu()
        return handles

    def start_batch(self, labels: Tensor, *, start: int) -> None:
        self._labels, self._start = labels, start
        self._batch += 1

    def _add(
        self, key: str, layer: nn.Module, inputs: Tensor, output: Tensor, columns: Tensor, units: int
    ) -> None:
        at = self._at(key, layer, inputs, output).to(inputs.device)
        part = pick_channels(inputs, columns, axis=unit_axis(layer))
        rows = _narrow(read_rows(layer, part, at), units, total=False)
        mean = rows.mean(0, dtype=torch.float64)
        batch = {
            "count": mean.new_tensor(float(len(rows))),
            "mean": mean,
            "m2": centred_gram(rows, mean),
        }
        if self._wanted.classes:
            each = at.numel() // len(self._labels)
            labels = F.one_hot(self._labels.repeat_interleave(each), self._classes).double()
            batch["class_count"], batch["class_sum"] = labels.sum(0), labels.T @ rows.double()
        self._found[key] = _both(self._found[key], batch) if key in self._found else batch

    def _at(self, key: str, layer: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
        """Where to look at this batch, ``[B, P]``."""
        if key in self._reached:
            # Batches of texts are of different widths, so each draws its own.
            valid = self._reached[key][self._batch]
            return draw_valid(f"{key}/{self._start}", valid, wanted=self._wanted.places, seed=0)
        # To a convolution, a window of a sample is a sample.
        each = 1 if is_linear(layer) else len(inputs) // len(self._labels)
        rows = each * len(self._labels)
        if key not in self._places:
            places = output_positions(layer, output, samples=rows)
            self._places[key] = draw_positions(
                key, samples=each * self._samples, places=places, wanted=self._wanted.places, seed=0
            )
        return self._places[key][each * self._start :][:rows]

    def tensors(self) -> dict[str, Tensor]:
        found = {f"{key}/weight": weight for key, weight in self._weights.items()}
        for key, parts in merged(self._found, _both).items():
            found |= {f"{key}/{part}": t.cpu() for part, t in parts.items()}
        return found


def _both(a: Parts, b: Parts) -> Parts:
    count = a["count"] + b["count"]
    delta = b["mean"] - a["mean"]
    moments = {
        "count": count,
        "mean": a["mean"] + delta * (b["count"] / count),
        "m2": a["m2"] + b["m2"] + delta.outer(delta) * (a["count"] * b["count"] / count),
    }
    return moments | {k: a[k] + b[k] for k in ("class_count", "class_sum") if k in b}


def _narrow(values: Tensor, units: int, *, total: bool) -> Tensor:
    """Average (or sum) neighbouring values of a unit until a row ``[…, D]`` is no longer than allowed."""
    each = values.shape[-1] // units
    cells = next((c for c in range(each, 0, -1) if each % c == 0 and units * c <= LARGEST), 1)
    if cells == each:
        return values
    parts = values.unflatten(-1, (units, cells, each // cells))
    return (parts.sum(-1) if total else parts.mean(-1)).flatten(-2)


def consumers_of(tensors: dict[str, Tensor], group: ChannelGroup) -> tuple[Consumer, ...]:
    """The consumers of a group, from what :class:`ConsumerCollector` and the gradients left."""
    found = []
    for layer, channels in group.channels("consumer").items():
        key = f"{group.name}/{layer}"
        count, mean = tensors[f"{key}/count"], tensors[f"{key}/mean"]
        between = None
        if f"{key}/class_sum" in tensors:
            # Classes count the same, however many samples they have.
            there = tensors[f"{key}/class_count"]
            means = (tensors[f"{key}/class_sum"] / there.clamp_min(1).unsqueeze(1))[there > 0]
            means = means - means.mean(0)
            between = means.T @ means / len(means)
        found.append(
            Consumer(
                layer=layer,
                weight=tensors[f"{key}/weight"],
                mean=mean,
                covariance=tensors[f"{key}/m2"] / count,
                between=between,
                sensitivity=tensors[f"{key}/sensitivity"],
                channels=channels,
            )
        )
    return tuple(found)
