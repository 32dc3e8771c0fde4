"""What it costs the network when one group alone keeps k units, for every k.

Reconstruction errors of different layers cannot be compared: late errors are common to all pixels
and pass undiminished, early ones average out. So the divergence of the network's output is measured
for each group at a few sizes, and the selection's own loss is scaled to go through these points.
Measured so, a group is judged as if no layer behind it would be solved again; the selection's loss
does not see that far. The geometric mean of both shared out budgets better than either, on networks
with and without skip paths (docs/complementary.md).

Shapes: ``U`` units, ``b`` values of a unit that a consumer reads at a place, ``D = U·b``,
``K`` kept units, ``O`` outputs of a consumer, ``C`` classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.subsample import spread_batches
from coprune.distributed.collectives import gathered
from coprune.distributed.world import own
from coprune.groups import ChannelGroup, columns_of
from coprune.layers import bias_of, filters, is_linear, is_recurrent, set_filters
from coprune.measure.evaluation import CLASSIFICATION
from coprune.progress import track
from coprune.recovery.ridge import RIDGE, growing_factor
from coprune.statistics import Consumer
from coprune.statistics.input_covariance import single_rows
from coprune.task import Task
from coprune.tasks.outputs import Cells
from coprune.tracing.forward import Inputs, are_photographs, moved
from coprune.tracing.hooks import hooked
from coprune.tracing.replay import Replay

LEVELS = (0.5, 0.25, 0.125)
"""Shares of a group's units at which it is measured."""

_TINY = 1e-12
_FOLDS = 4  # batches at least, where each is judged by weights that were solved on the others


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        work: samples times measurements: the more groups, the fewer samples each, so that the time
            grows with the depth and not with its square.
        least, most: samples.
        batch: samples of a forward pass; texts of one batch are padded to its longest.
        levels: shares of a group's units at which it is measured.
        rows: of a regression, about, where all cuts together are tried.
        learning, judging: samples that such a trial is solved and judged on.
    """

    work: int
    least: int
    most: int
    batch: int
    levels: tuple[float, ...] = LEVELS
    rows: int = 2_500  # a tenth of what recovery takes
    learning: int = 128
    judging: int = 256

    def times(self, factor: float) -> Effort:
        """With so many times the samples."""
        counted = ("work", "most", "learning", "judging")
        sizes = {name: round(factor * getattr(self, name)) for name in counted}
        return self if factor == 1 else replace(self, **sizes)


IMAGES = Effort(work=12_000, least=64, most=500, batch=125)

LARGE = Effort(work=1_200, least=48, most=500, batch=32, levels=LEVELS[:1], learning=64, judging=64)
"""A photograph costs a hundred times as much as a small image. On EfficientNet-Lite0 one size of a group
shared out a budget as well as three: divergence .197 with half of the units, .204 with all three."""

TEXTS = Effort(work=2_000, least=48, most=500, batch=16)
"""A sentence costs as much as many small images."""

TOKENS = Effort(work=1_000, least=16, most=250, batch=8, levels=LEVELS[:2], rows=24_000, judging=16)
"""Where every token has an output of its own, a text is as good as many samples.
Its layers have a thousand columns and more, so a trial takes as many rows as recovery, if there are."""


def effort_for(inputs: Inputs, task: Task) -> Effort:
    """How much to measure on inputs of such a kind."""
    tokens = task.divergence.axis == -1
    if isinstance(inputs, Tensor) and (inputs.is_floating_point() or not tokens):
        return LARGE if are_photographs(inputs) else IMAGES
    return TOKENS if tokens else TEXTS


@runtime_checkable
class Curved(Protocol):
    """A choice that knows its own loss for every k."""

    @property
    def group(self) -> ChannelGroup:
        """The group."""

    @property
    def loss(self) -> Tensor:
        """``[U + 1]`` float64: what is lost when k are kept."""

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        """What reads the group."""

    def kept(self, k: int) -> Tensor:
        """The units that stay, sorted, ``[K]``."""


@torch.no_grad()
def measured_curves(
    model: nn.Module,
    choices: Sequence[Curved],
    source: Source,
    *,
    task: Task = CLASSIFICATION,
    device: str = "cpu",
    effort: Effort | None = None,
) -> dict[str, Tensor]:
    """Divergence of the network's output when one group alone is pruned, for every k.

    The processes of a run share out the measurements; each is made by one of them, on all samples.

    Args:
        model: unpruned; left as it is.
        choices: one a group.
        source: calibration samples; labels are not read.
        device: where to compute.
        effort: how much is measured; as usual for such samples.

    Returns:
        Group name → ``[U + 1]`` float64, never rising with k: the geometric mean of the KL divergence
        (nats) and the selection's loss when k units are kept.
    """
    model.to(device).eval()
    first, _ = next(iter(source.batches(1)))
    effort = effort or effort_for(first, task)
    plan = [(choice, k) for choice in choices for k in levels(choice.group.size, effort.levels)]
    count = max(effort.least, min(effort.most, effort.work // max(1, len(plan))))
    few = any(consumer.fits_anything for choice in choices for consumer in choice.consumers)
    size = min(effort.batch, math.ceil(min(count, len(source)) / _FOLDS)) if few else effort.batch
    inputs = [moved(part, device) for part in spread_batches(source, count, batch_size=size)]
    replay, divergence = Replay(model, inputs), task.divergence
    wanted: list[tuple[Cells, ...]] = []
    with _single_rows(model, choices, wanted) as rows:
        for x, output in replay.first():
            wanted.append(divergence.cells(task.read(output, x)))
    mine: list[tuple[str, int, float]] = []
    for choice, k in track(own(plan), label="sensitivity of groups", total=len(own(plan))):
        again = zip(_pruned(model, replay, choice, k, rows), wanted, strict=True)
        apart = [divergence.distance(task.read(output, x), due) for (x, output), due in again]
        mine.append((choice.group.name, k, float(torch.cat(apart).mean())))
    points: dict[str, dict[int, float]] = {choice.group.name: {} for choice in choices}
    for name, k, value in chain.from_iterable(gathered(mine)):
        points[name][k] = value
    return {c.group.name: _curve(c, points[c.group.name]) for c in choices}


def _curve(choice: Curved, points: dict[int, float]) -> Tensor:
    """The geometric mean of what was measured and of the choice's own loss."""
    loss, measured = choice.loss, through(choice.loss, points)
    if points and any(c.fits_anything for c in choice.consumers):
        # Such a loss says something where few units are left; in proportion to what was measured there.
        least = min(points)
        return measured * (loss[least] / measured[least].clamp_min(_TINY)).sqrt()
    return (measured * loss).clamp_min(0).sqrt()


_Rows = dict[tuple[str, str], dict[int, Tensor]]
"""(group, layer) → number of the batch → what the layer reads of it, ``[M, D]``."""


@contextmanager
def _single_rows(model: nn.Module, choices: Sequence[Curved], passed: Sequence[Any]) -> Iterator[_Rows]:
    """Within the context, what is read by consumers that any regression would fit is kept.

    Args:
        model: whose batches pass.
        choices: one a group.
        passed: has an entry a batch that has passed.
    """
    found: _Rows = {}

    def keep(key: tuple[str, str], channels: Tensor, layer: nn.Module, given: Any, output: Tensor) -> None:
        rows = single_rows(layer, given[0], output, channels)
        if rows is not None:
            parts, number = found.setdefault(key, {}), len(passed)
            # A layer may run several times in a pass.
            parts[number] = torch.cat([parts[number], rows.cpu()]) if number in parts else rows.cpu()

    hooks = [
        (c.layer, partial(keep, (choice.group.name, c.layer), c.channels))
        for choice in choices
        for c in choice.consumers
        if c.fits_anything and c.channels is not None
    ]
    with hooked(model, hooks):
        yield found


def _pruned(
    model: nn.Module, replay: Replay, choice: Curved, k: int, rows: _Rows
) -> Iterator[tuple[Inputs, Any]]:
    """Every batch, and what the model hands back when one group alone keeps ``k`` units.

    A consumer that reads no more rows than it has columns could be made to say anything on them, so there a
    batch is judged by weights that were solved without it.
    """
    kept, size = choice.kept(k), choice.group.size
    again = replay.again(c.layer for c in choice.consumers)
    apart = [rows.get((choice.group.name, c.layer), {}) for c in choice.consumers]
    if not any(apart):
        with pruned_alone(model, choice.consumers, kept, size):
            yield from again
        return
    for batch in sorted({number for read in apart for number in read}):
        others = [
            c.without(read[batch]) if batch in read and len(read[batch]) < c.rows else c
            for c, read in zip(choice.consumers, apart, strict=True)
        ]
        with pruned_alone(model, others, kept, size):
            yield next(again)


def levels(size: int, shares: Sequence[float] = LEVELS) -> list[int]:
    """Shares of ``size`` units in whole ones, rising: at least one, fewer than all."""
    return sorted({max(1, round(share * size)) for share in shares} - {size})


def through(loss: Tensor, points: dict[int, float]) -> Tensor:
    """The loss, scaled so that it passes through measured points.

    The factor is interpolated in k, in logarithms, and constant beyond the outermost points.

    Args:
        loss: ``[U + 1]``, falling to 0 at k = U.
        points: k → measured value.

    Returns:
        ``[U + 1]``, never rising with k.
    """
    if not points:
        return loss
    at = sorted(points)
    factors = [math.log(max(points[k], _TINY) / max(float(loss[k]), _TINY)) for k in at]
    curve = loss * torch.from_numpy(np.interp(np.arange(len(loss)), at, factors)).exp()
    return curve.flip(0).cummax(0).values.flip(0)


@contextmanager
def pruned_alone(model: nn.Module, consumers: Sequence[Consumer], kept: Tensor, units: int) -> Iterator[None]:
    """Within the context the consumers read the kept units only, and are solved again on them.

    W'_K = W C_·K (C_KK + λI)⁻¹, and what the removed units contributed on average is added to the output.

    Args:
        model: changed only within the context.
        consumers: of the group.
        kept: ``[K]`` int64.
        units: ``U``.
    """
    with ExitStack() as changes:
        for consumer in consumers:
            layer = model.get_submodule(consumer.layer)
            weight = filters(layer)
            solved, shift = resolved(consumer, kept, units)
            solved, shift = solved.to(weight), shift.to(weight)
            bias = bias_of(layer)
            before = None if bias is None else bias.detach().clone()
            changes.callback(set_filters, layer, weight.detach().clone(), before)
            units_of = consumer.channels
            channels = slice(None) if units_of is None else units_of.flatten().to(weight.device)
            part = weight[:, channels]
            each = part[0].numel() // solved.shape[1]
            # Where neighbouring pixels were averaged, each gets its share.
            weight[:, channels] = (solved.repeat_interleave(each, 1) / each).view_as(part)
            set_filters(layer, weight)
            if not is_recurrent(layer):
                changes.enter_context(hooked(model, {consumer.layer: partial(_add, shift)}))
            elif bias is not None:
                set_filters(layer, weight, bias + shift)
        yield


def _add(shift: Tensor, layer: nn.Module, _: object, output: Tensor) -> Tensor:
    return output + (shift if is_linear(layer) else shift.view(-1, *(1 for _ in output.shape[2:])))


def resolved(consumer: Consumer, kept: Tensor, units: int, *, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Weights of a consumer on the kept units, others 0, ``[O, D]``, and what to add, ``[O]``.

    W'_K = W C_·K (C_KK + λI)⁻¹. With no more rows than columns, W'_K = W_K + W_R C_RK (C_KK + λI)⁻¹, where
    R is what goes.
    """
    each = consumer.weight.shape[1] // units
    columns = columns_of(kept, each)
    factor = growing_factor(
        consumer.covariance[columns][:, columns], ridge=ridge, scale=consumer.covariance.diagonal().mean()
    )
    solved, wanted = torch.zeros_like(consumer.weight), consumer.weight
    if consumer.fits_anything:
        # What no row has shown of the old weights would be shrunk away: it stays, and what is gone is added.
        solved[:, columns] = consumer.weight[:, columns]
        wanted = wanted - solved
    solved[:, columns] += torch.cholesky_solve(consumer.covariance[columns] @ wanted.T, factor).T
    return solved, (consumer.weight - solved) @ consumer.mean
