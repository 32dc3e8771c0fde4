"""Which task it is: what was asked for, else what model and data plainly say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coprune.data import DataSet, Source
from coprune.data.subsample import spread_batches
from coprune.errors import UserError, near_matches, setting, shown
from coprune.measure.evaluation import has_targets, judged_by
from coprune.models.architectures import task_of
from coprune.task import TASKS, Task
from coprune.tasks.foreign import metric_of
from coprune.tasks.metrics import Metric
from coprune.tasks.outputs import by_name
from coprune.tracing.forward import Inputs, check_takes, copied, moved, part_of, tensors_of
from coprune.user_factory import user_factory

_PYTHON = "python:"
_SCALED, _SCALED_BATCH = 256, 32
"""Samples that tell the spread of outputs, and how many at once."""


@dataclass(frozen=True)
class Asked:
    """What a user says of the task.

    Attributes:
        task: its name, or a task of their own.
        metric: a name, ``python:module:name``, or what :func:`coprune.tasks.foreign.metric_of` takes.
        outputs: names of the parts of the output that count, or a function (output) → tensors.
        loss: a function (output, targets) → scalar, or ``python:module:name``.
    """

    task: str | Task | None = None
    metric: Any = None
    outputs: str | Sequence[str] | Callable[[Any], Any] = ()
    loss: str | Callable[[Any, Any], Tensor] | None = None

    @property
    def name(self) -> str | None:
        """Of the task, where one was asked for.

        Raises:
            UserError: there is none of that name.
        """
        if isinstance(self.task, Task):
            return self.task.name
        if self.task is not None and self.task not in TASKS:
            raise UserError(f"{setting('task', shown(self.task))}: {near_matches(self.task, TASKS)}")
        return self.task

    def made(self, task: Task) -> Task:
        """A task with what was asked for in place of its own.

        Raises:
            UserError: an unknown metric; a loss or outputs that are no functions.
        """
        if self.metric is not None:
            task = replace(task, metric=_metric(self.metric))
        if self.outputs:
            task = replace(task, reader=_reader(self.outputs))
        if self.loss is not None:
            loss = user_factory(self.loss, "loss") if isinstance(self.loss, str) else self.loss
            if not callable(loss):
                raise UserError(f"{setting('loss')}: give a function of (output, targets), not {shown(loss)}")
            task = replace(task, own_loss=loss)
        return task


def _metric(given: Any) -> Metric:
    if isinstance(given, str) and given.startswith(_PYTHON):
        found = user_factory(given, "metric")
        given = found() if isinstance(found, type) else found
    return metric_of(given)


def _reader(given: str | Sequence[str] | Callable[[Any], Any]) -> Callable[[Any, Inputs], Sequence[Tensor]]:
    if callable(given):
        return partial(_own, given)
    return by_name((given,) if isinstance(given, str) else tuple(given))


def _own(read: Callable[[Any], Any], output: Any, inputs: Inputs) -> Sequence[Tensor]:
    found = tensors_of(read(output))
    if not found:
        raise TypeError("the function of outputs= finds no tensor")
    return found


def which_task(model: nn.Module, sample: tuple[Inputs, Any], asked: Asked, *, labelled: bool) -> Task:
    """The task of a run.

    Args:
        model: on the CPU.
        sample: inputs and targets of one sample or more.
        asked: by the user; where no task is named, class numbers, the model's class, or the shapes of outputs
            and targets must say it.
        labelled: whether targets are class numbers, one a sample.

    Raises:
        UserError: nothing says what the targets are.
    """
    if isinstance(asked.task, Task):
        return asked.made(asked.task)
    name = asked.name or ("classification" if labelled else task_of(model))
    if name is None:
        inputs, targets = (moved(part_of(part, slice(2)), "cpu") for part in sample)
        name = _plain(check_takes(model, inputs), targets, known=bool(asked.outputs))
    return asked.made(TASKS[name])


def task_for(model: nn.Module, data: DataSet, asked: Asked | None = None) -> Task:
    """The task of a model on data; see :func:`which_task`."""
    sample = next(iter(data.heldout.batches(2)))
    found = which_task(model.cpu().eval(), sample, asked or Asked(), labelled=data.classes is not None)
    if asked is None or asked.metric is None:
        found = judged_by(found, data.heldout)
    return found


def scaled(task: Task, model: nn.Module, source: Source) -> Task:
    """The task with the spreads of the model's outputs, where it counts errors in units of them.

    Args:
        task: as it was found.
        model: unpruned, on the CPU, in evaluation mode.
        source: some of its samples are looked at.
    """
    if task.divergence.kind != "gaussian" or task.divergence.spreads:
        return task
    with torch.no_grad():
        parts = spread_batches(source, _SCALED, batch_size=_SCALED_BATCH)
        known = task.divergence.known(task.outputs(model, copied(inputs)) for inputs in parts)
    return replace(task, divergence=known)


def can_train(task: Task, data: DataSet) -> bool:
    """Whether there is a loss, and targets for it."""
    return task.has_loss and has_targets(data.calibration)


def _plain(output: Any, targets: Any, *, known: bool) -> str:
    """The name of the task that shapes say.

    Args:
        output: of the model.
        targets: of the same samples.
        known: whether the user has named the outputs that count.
    """
    if targets is None:
        named = getattr(output, "logits", None) if not isinstance(output, Tensor) else output
        if isinstance(named, Tensor) and named.ndim == 2 and named.shape[1] > 1 and not known:
            return "classification" if _are_logits(named) else "outputs"
        return "outputs"
    found = tensors_of(output)
    whole = isinstance(targets, Tensor) and not targets.is_floating_point()
    if whole and targets.ndim == 1 and any(t.ndim == 2 and t.is_floating_point() for t in found):
        return "classification"  # of held-out samples; those to calibrate on have none
    if whole and targets.ndim >= 3 and any(t.ndim == 4 and t.shape[-2:] == targets.shape[-2:] for t in found):
        return "segmentation"
    kinds = " and ".join(
        f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in tensors_of(targets)
    )
    names = ", ".join(name for name in TASKS if name != "classification")
    raise UserError(
        f"targets are {kinds or shown(targets)} and no class numbers [N]; say what they are with "
        f"{setting('task')}: {names}"
    )


def _are_logits(rows: Tensor) -> bool:
    """Whether rows ``[N, C]`` may be logits: neither of length 1 nor all positive, as features are."""
    lengths = torch.linalg.vector_norm(rows.float(), dim=1)
    return not bool(torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3)) and bool((rows < 0).any())
