"""What the consumers of a group read, and what an error of their outputs costs.

Shapes: ``U`` units, ``b`` values of a unit that a consumer reads at one place (kernel size, or pixels
of a flattened map), ``D = U·b``, ``O`` outputs of the consumer, ``C`` classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from coprune.data import Source
from coprune.data.shares import own_batches, own_steps
from coprune.data.spread import spread_batches
from coprune.forward import Inputs, copied, logits_of, moved, part_of, samples_in
from coprune.profile.reach import has_tokens, learn_reach
from coprune.profile.rows import draw_positions, draw_valid, gram, output_positions, pick_channels, read_rows
from coprune.profile.statistic import ConsumerCovariance
from coprune.progress import track
from coprune.ranks.exchange import Parts, merged
from coprune.ranks.who import own
from coprune.units import ChannelGroup, unit_axis

LARGEST = 8192
"""Values a consumer may read at a place (a covariance of half a gigabyte). Of a wider one, which reads
flattened maps, neighbouring pixels are averaged."""

SENSITIVE_TEXTS = 250
"""Texts whose gradients are taken: a mean square needs fewer than a covariance, and a backward pass is
dear. Of images all are."""

_PROBES = 16


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
        self._reached = {layer: iter(batches) for layer, batches in reached.items()}
        self._labels = torch.empty(0, dtype=torch.int64)
        self._start = 0
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
                weight = layer.get_parameter("weight").detach()[:, columns].double().flatten(1)
                self._weights[key] = _narrow(weight, group.size, total=True).cpu()
        return handles

    def start_batch(self, labels: Tensor, *, start: int) -> None:
        self._labels, self._start = labels, start

    def _add(
        self, key: str, layer: nn.Module, inputs: Tensor, output: Tensor, columns: Tensor, units: int
    ) -> None:
        at = self._at(key, layer, inputs, output).to(inputs.device)
        part = pick_channels(inputs, columns, axis=unit_axis(layer))
        rows = _narrow(read_rows(layer, part, at), units, total=False)
        mean = rows.mean(0, dtype=torch.float64)
        centred = rows.double() - mean
        batch = {
            "count": mean.new_tensor(float(len(rows))),
            "mean": mean,
            "m2": gram(centred),
        }
        if self._wanted.classes:
            labels = F.one_hot(self._labels.repeat_interleave(at.shape[1]), self._classes).double()
            batch["class_count"], batch["class_sum"] = labels.sum(0), labels.T @ rows.double()
        self._found[key] = _both(self._found[key], batch) if key in self._found else batch

    def _at(self, key: str, layer: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
        """Where to look at this batch, ``[B, P]``."""
        # A sample of windows of an image is several of the layer's.
        start = self._start * len(inputs) // len(self._labels)
        if key in self._reached:
            # Batches of texts are of different widths, so each draws its own.
            name = f"{key}/{start}"
            return draw_valid(name, next(self._reached[key]), wanted=self._wanted.places, seed=0)
        if key not in self._places:
            places = output_positions(layer, output)
            self._places[key] = draw_positions(
                key, samples=self._samples, places=places, wanted=self._wanted.places, seed=0
            )
        return self._places[key][start : start + len(inputs)]

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


def output_sensitivity(
    model: nn.Module,
    groups: Iterable[ChannelGroup],
    source: Source,
    *,
    batch_size: int,
    device: str,
    label: str,
) -> dict[str, Tensor]:
    """Mean square gradient by every output of every consumer.

    The loss is the model's own log-likelihood: classes are drawn from what it predicts (Fisher
    information, not the empirical one), so no label is read.

    Args:
        model: in evaluation mode; its parameters' gradients are left alone.
        groups: whose consumers to look at.
        source: calibration samples, floating-point.
        batch_size: samples of a backward pass.
        device: where to compute.
        label: of the progress bar.

    Returns:
        ``group/layer/sensitivity`` → ``[O]``: the mean over samples and places of a convolution; over
        samples the sum of all tokens, of which only some count.
    """
    model.to(device).eval()
    keys = _keys(groups)
    sums: dict[str, Parts] = {}
    roots: list[Tensor] = []

    def watch(layer: nn.Module, _: Sequence[Tensor], output: Tensor, name: str) -> None:
        axis = output.ndim - 1 if isinstance(layer, nn.Linear) else 1

        tokens = has_tokens(layer, output)

        def add(gradient: Tensor) -> None:
            rows = gradient.movedim(axis, -1).flatten(0, -2)
            total = rows.square().sum(0, dtype=torch.float64)
            part = {"sum": total, "count": total.new_tensor(len(gradient) if tokens else len(rows))}
            sums[name] = _added(sums[name], part) if name in sums else part

        if not output.requires_grad:
            output.requires_grad_()  # of a frozen model that reads no floating-point numbers
        roots.append(output)
        # On the tensor, so that an activation that works in place afterwards does no harm.
        output.register_hook(add)

    handles = [
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: watch(m, i, o, name))
        for name in keys
    ]
    first, _ = next(iter(source.batches(1)))
    batches: Iterable[tuple[int, Inputs]] = ((b.start, b.inputs) for b in own_batches(source, batch_size))
    steps = own_steps(source, batch_size)
    if not isinstance(first, Tensor):
        texts = spread_batches(source, SENSITIVE_TEXTS, batch_size=batch_size)
        starts = accumulate((samples_in(inputs) for inputs in texts), initial=0)
        batches = own(list(zip(starts, texts, strict=False)))
        steps = len(own(texts))
    drawing = _Drawing(batch_size)
    try:
        for start, inputs in track(batches, label=label, total=steps):
            with torch.enable_grad():
                # The loader's own tensor is not to be marked; the first layer may work in place.
                x = moved(inputs, device)
                roots.clear()
                if isinstance(x, Tensor):
                    x = x.detach().requires_grad_()
                logits = logits_of(model, copied(x))
                drawn = drawing.classes(logits.detach().softmax(1).cpu(), start=start)
                loss = F.cross_entropy(logits, drawn.to(device), reduction="sum")
                # All gradients on the way to the input; of named inputs, to the outputs themselves.
                torch.autograd.grad(loss, x if isinstance(x, Tensor) else list(roots))
    finally:
        for handle in handles:
            handle.remove()
    whole = merged(sums, _added)
    means = {name: (parts["sum"] / parts["count"]).cpu() for name, parts in whole.items()}
    return {f"{key}/sensitivity": means[name] for name, found in keys.items() for key in found}


def _added(a: Parts, b: Parts) -> Parts:
    return {key: a[key] + b[key] for key in a}


class _Drawing:
    """Draws a class for every sample, in the order of all samples, whoever has those before."""

    def __init__(self, batch_size: int) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._size, self._drawn = batch_size, 0

    def classes(self, shares: Tensor, *, start: int) -> Tensor:
        """``[N]`` int64.

        Args:
            shares: probabilities, ``[N, C]``.
            start: number of the first sample among all.
        """
        while self._drawn < start:  # other processes' batches
            count = min(self._size, start - self._drawn)
            torch.multinomial(torch.ones(count, shares.shape[1]), 1, generator=self._generator)
            self._drawn += count
        self._drawn += len(shares)
        return torch.multinomial(shares, 1, generator=self._generator)[:, 0]


def reached_places(
    model: nn.Module, groups: Iterable[ChannelGroup], source: Source, *, batch_size: int, device: str
) -> dict[str, list[Tensor]]:
    """Which places of what the consumers put out have a say, of layers that are applied to tokens.

    Args:
        model: in evaluation mode; its parameters' gradients are left alone.
        groups: whose consumers to look at.
        source: calibration samples; read only where there are tokens.
        batch_size: as that of the pass in which the places are looked at.
        device: where to compute.

    Returns:
        ``group/layer`` → a batch's ``[B, places]`` bool, batch by batch of this process.
    """
    model.to(device).eval()
    keys = _keys(groups)
    first, _ = next(iter(source.batches(_PROBES)))
    rule = learn_reach(model, moved(part_of(first, slice(_PROBES)), device), list(keys))
    if not rule.patterns:
        return {}
    found: dict[str, list[Tensor]] = {}
    for batch in own_batches(source, batch_size):
        for name, places in rule.of(moved(batch.inputs, device)).items():
            for key in keys[name]:
                found.setdefault(key, []).append(places)
    return found


def _keys(groups: Iterable[ChannelGroup]) -> dict[str, list[str]]:
    """Consumer → ``group/layer`` for every group that it reads."""
    keys: dict[str, list[str]] = {}
    for group in groups:
        for layer in group.channels("consumer"):
            keys.setdefault(layer, []).append(f"{group.name}/{layer}")
    return keys
