"""How good a network is on samples, without augmentation, by the metric of its task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.sharding import OwnBatch, own_batches, own_steps
from coprune.data.source import check_finite_inputs, name_of, where_in
from coprune.distributed.collectives import gathered
from coprune.errors import UserError, first_line, setting
from coprune.measure.intervals import SURE, Loss, around, error_of_mean, jackknife, paired_drop, wilson
from coprune.progress import track
from coprune.task import TASKS, Task
from coprune.tasks.metrics import Metric
from coprune.tasks.outputs import Outputs
from coprune.tracing.forward import FAILURES, Inputs, moved, samples_in, taking, tensors_of
from coprune.user_code import within

_NOT_FINITE = "the model returns NaN or Inf on this data; check weights and normalisation"
BLOCKS = 10
"""Blocks of samples whose figures say how sure the whole one is, of a metric that knows no single samples."""
CLASSIFICATION = TASKS["classification"]
BATCH = 250
"""Samples of a pass."""


class NotFiniteError(UserError):
    """A model's outputs are NaN or Inf."""


@dataclass(frozen=True)
class Score:
    """How well a model does on samples.

    Attributes:
        value: the metric's; a share is a fraction in [0, 1].
        samples: that gave it.
        metric: what it is.
        sums: the metric's, of every sample, ``[N, S]`` float64; None where it knows no single samples.
        blocks: the figures of some blocks of samples, of such a metric.
        commonest: of class numbers, how many are of the commonest class.
        commonest_right: of how many of those the model is right.
    """

    value: float
    samples: int
    metric: Metric = field(default=TASKS["classification"].judged, compare=False)
    sums: Tensor | None = field(default=None, repr=False, compare=False)
    blocks: tuple[float, ...] = ()
    commonest: int = 0
    commonest_right: int = 0

    @property
    def words(self) -> str:
        """As it is read, e.g. ``top-1 93.24%``."""
        return f"{self.metric.label} {self.metric.shown(self.value)}"

    @property
    def constant(self) -> float | None:
        """Top-1 of always answering the commonest class; None where there are no class numbers."""
        return self.commonest / self.samples if self.commonest else None

    @property
    def beats_constant(self) -> bool:
        """Whether the model is surely (95 %) better than a constant answer.

        In pairs, than the commonest class; of R², than the mean. Of other metrics nothing is known.
        """
        if self.metric.name == "r2" and self.metric.reads_targets:
            return self.value > 0
        if not self.commonest:
            return True
        right = round(self.value * self.samples)
        won, lost = right - self.commonest_right, self.commonest - self.commonest_right
        return right == self.samples or won - lost > 1.645 * math.sqrt(won + lost)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the value on all samples of the kind; None where too few were seen to say one.

        Wilson's where samples are right or wrong; by the jackknife over samples, or over blocks of them,
        else.
        """
        if self.metric.pairs:
            return wilson(self.value, self.samples)
        if self.sums is not None:
            error, count = jackknife(self.sums, self.metric.finish), len(self.sums)
        else:
            error, count = error_of_mean(list(self.blocks)), len(self.blocks)
        low, high = around(self.value, error, count, z=1.96)
        return (low, high) if high - low < _NOTHING else None


_NOTHING = 1e12
"""An interval as wide says nothing, such as one of R² from two samples that are alike."""


def lost(before: Score, after: Score, *, z: float = SURE) -> Loss:
    """What one network loses against another, in the metric's unit, and an interval of the true loss.

    Args:
        before, after: scores on the same samples by the same metric.
        z: normal quantile of the ends; the interval is 80 % with :data:`~coprune.measure.intervals.SURE`.
    """
    metric = before.metric
    found = metric.lost(before.value, after.value)
    if before.sums is not None and after.sums is not None:
        if metric.pairs:
            return paired_drop(before.sums[:, 0] > 0.5, after.sums[:, 0] > 0.5, z=z)
        both = torch.stack([before.sums, after.sums], 1)
        error = metric.scale * jackknife(
            both, lambda sums: metric.finish(sums)[..., 0] - metric.finish(sums)[..., 1]
        )
        return Loss(found, *around(found, error, len(both), z=z))
    apart = [metric.lost(a, b) for a, b in zip(before.blocks, after.blocks, strict=True)]
    return Loss(found, *around(found, error_of_mean(apart), len(apart), z=z))


class Reference:
    """The unpruned model's outputs, which an agreement reads as targets; kept where they are small.

    Args:
        model: unpruned; put into evaluation mode and on the device that is asked for.
        task: reads its outputs.
        memory: bytes of outputs that are kept at most.
    """

    def __init__(self, model: nn.Module, task: Task, *, memory: int = 1 << 28) -> None:
        self._model, self._task, self._room = model, task, memory
        self._known: dict[tuple[int, int, int], tuple[Source, Outputs]] = {}

    def of(self, source: Source, batch: OwnBatch, inputs: Inputs) -> Outputs:
        """Outputs for a batch of a source."""
        key = (id(source), batch.start, samples_in(inputs))
        if key in self._known:
            return self._known[key][1]
        device = next((t.device for t in tensors_of(inputs)), torch.device("cpu"))
        found = self._task.outputs(self._model.to(device).eval(), inputs).cpu()
        size = sum(t.nbytes for t in found.tensors)
        if size <= self._room:
            self._room -= size
            self._known[key] = (source, found)  # the source is held, so that no other takes its identity
        return found


@torch.no_grad()
def evaluate(
    model: nn.Module,
    source: Source,
    *,
    task: Task = CLASSIFICATION,
    reference: Reference | None = None,
    batch_size: int = BATCH,
    device: str = "cpu",
    label: str = "",
) -> Score:
    """The metric of a task. Processes of a run share out the batches and get the same result.

    Args:
        model: takes the inputs of the source. Left in evaluation mode and on the device.
        source: where to measure.
        task: reads the outputs and judges them.
        reference: the unpruned model's outputs, where the metric reads them; the model's own else.
        batch_size: changes speed, not the result; of a metric that knows no single samples, the blocks too.
        device: where to run.
        label: of the progress bar.

    Raises:
        UserError: no samples, no targets where the metric reads them, outputs that do not fit them, NaN or
        Inf.
    """
    metric = task.judged
    model.to(device).eval()
    label = label or metric.what
    if metric.whole is not None:
        return _as_a_whole(model, source, task, batch_size=batch_size, device=device)
    reference = None if metric.reads_targets else reference or Reference(model, task)
    mine: list[tuple[Tensor, Tensor, bool]] = []
    batches = track(own_batches(source, batch_size), label=label, total=own_steps(source, batch_size))
    for batch in batches:
        inputs = moved(batch.inputs, device)
        with within(where_in(source, batch.number)):
            if task.classifies and metric.reads_targets:
                check_labels(batch.labels)
            with taking(model, inputs):
                outputs = task.outputs(model, inputs)
            finite = all(bool(output.isfinite().all()) for output in outputs.tensors)
            if not finite:
                check_finite_inputs(inputs)
            targets = reference.of(source, batch, inputs) if reference else moved(batch.labels, device)
            sums = _sums(task, metric, outputs, targets)
        mine.append((sums, batch.labels if task.classifies and reference is None else torch.empty(0), finite))
    every = [batch for turn in zip_longest(*gathered(mine)) for batch in turn if batch is not None]
    if not every:
        raise UserError(f"no samples to measure {label.partition(',')[0]} on")
    parts, labels, finite_ones = zip(*every, strict=True)
    with within(name_of(source)):
        if not all(finite_ones):
            raise NotFiniteError(_NOT_FINITE)
    sums = torch.cat(parts)
    value = float(metric.finish(sums.sum(0)))
    return Score(value, len(sums), metric, sums, (), *_commonest(torch.cat(labels), sums))


def judged_by(task: Task, source: Source) -> Task:
    """The task with the metric that samples can be judged by: without targets, agreement."""
    return task if not task.judged.reads_targets or has_targets(source) else replace(task, metric=None)


def has_targets(source: Source) -> bool:
    """Whether samples come with targets."""
    return next(iter(source.batches(1)))[1] is not None


def _sums(task: Task, metric: Metric, outputs: Outputs, targets: Any) -> Tensor:
    if targets is None:
        raise UserError(
            f"{metric.name} compares with targets, and this data has none; give data with targets, or leave "
            f"{setting('metric')} out: then agreement with the unpruned model is judged"
        )
    if task.classifies and metric.reads_targets:
        check_outputs(outputs.tensors[0], targets)
    try:
        return metric.sums(outputs, targets)  # type: ignore[misc]
    except UserError:
        raise
    except FAILURES as cause:
        made = " and ".join(str(list(t.shape)) for t in outputs.tensors)
        wanted = " and ".join(str(list(t.shape)) for t in tensors_of(targets)) or type(targets).__name__
        raise UserError(
            f"{metric.name} cannot be worked out of outputs {made} and targets {wanted} "
            f"({first_line(cause)}); check the data, {setting('task')} and {setting('outputs')}"
        ) from cause


def _commonest(labels: Tensor, sums: Tensor) -> tuple[int, int]:
    """How many samples are of the commonest class, and how many of those are right."""
    if not len(labels):
        return 0, 0
    classes = labels.bincount().tolist()
    commonest = classes.index(max(classes))
    return classes[commonest], int(sums[labels == commonest, 0].sum())


@dataclass(frozen=True)
class _Block:
    """Some of a source's batches, again and again, on the device."""

    source: Source
    batch_size: int
    device: str
    number: int
    of: int

    def __iter__(self) -> Iterator[tuple[Inputs, Any]]:
        batches = self.source.batches(self.batch_size)
        yield from (moved(batch, self.device) for batch in islice(batches, self.number, None, self.of))


def _as_a_whole(model: nn.Module, source: Source, task: Task, *, batch_size: int, device: str) -> Score:
    """By somebody else's code; every process works it out by itself."""
    metric, samples = task.judged, len(source)
    batch_size = min(batch_size, max(1, samples // BLOCKS))
    count = max(1, min(BLOCKS, source.steps(batch_size)))
    blocks = [_Block(source, batch_size, device, number, count) for number in range(count)]
    value, *parts = metric.whole(model, blocks, task.read)  # type: ignore[misc]
    if not math.isfinite(value):
        raise NotFiniteError(f"{metric.name} is {value}; check the model, the data and the metric")
    return Score(value, samples, metric, None, tuple(parts))


def check_labels(labels: Tensor, classes: int | None = None) -> None:
    """Refuse labels that are no class.

    Args:
        labels: ``[N]`` int64.
        classes: how many there are, when that is known.

    Raises:
        UserError: a negative label, or one that is too large.
    """
    if len(labels) and int(labels.min()) < 0:
        raise UserError(f"negative label {int(labels.min())}; labels count from 0")
    if classes is not None and len(labels) and int(labels.max()) >= classes:
        raise UserError(f"label {int(labels.max())} is outside the data's {classes} classes")


def check_finite(output: Tensor) -> None:
    """Refuse an output with NaN or Inf.

    Raises:
        NotFiniteError: in the process that sees it.
    """
    if not bool(output.isfinite().all()):
        raise NotFiniteError(_NOT_FINITE)


def check_outputs(logits: Tensor, labels: Tensor) -> None:
    """Refuse an output that is not ``[B, C]`` with every label below ``C``.

    Args:
        logits: what the model returned for a batch.
        labels: ``[B]`` int64.

    Raises:
        UserError: one line that says which of these it is.
    """
    if logits.ndim != 2 or len(logits) != len(labels):
        raise UserError(
            f"the model returns {list(logits.shape)} for {len(labels)} samples; "
            "a classifier returns one row of logits a sample"
        )
    if int(labels.max()) >= logits.shape[1]:
        raise UserError(
            f"label {int(labels.max())} is outside the model's {logits.shape[1]} classes "
            f"(0…{logits.shape[1] - 1}); give {setting('num_classes')} or other data"
        )
