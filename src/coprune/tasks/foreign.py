"""Metrics of other libraries, and a user's own: torchmetrics, 🤗 ``compute_metrics``, plain functions.

They know no single samples, so samples are taken in blocks, whose figures say how sure the whole one is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from coprune.errors import UserError, setting, shown
from coprune.tasks.metrics import Batches, Metric
from coprune.tasks.names import METRICS
from coprune.tasks.outputs import Outputs
from coprune.tracing.forward import Inputs, moved, run, tensors_of

_LOWER = ("loss", "error", "perplexity", "mse", "mae", "rmse", "wer", "cer", "distance")
"""Words in the names of figures that are better when they are lower, where nothing else says so."""

_PAD = -100


def metric_of(given: Any) -> Metric:
    """A metric out of whatever says one.

    Args:
        given: a :class:`~coprune.tasks.metrics.Metric`, a built-in one's name, a torchmetrics metric,
            ``compute_metrics`` of 🤗 (one argument, predictions and label_ids → a dict), or a function
            (model, batches of inputs and targets) → float. A function may carry ``name`` and
            ``higher_is_better``.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        return METRICS.find(given)
    made = not isinstance(given, type)
    if made and all(hasattr(given, method) for method in ("update", "compute", "reset", "clone")):
        name, whole = type(given).__name__, partial(_torchmetrics, given)
    elif made and callable(given):
        name = str(getattr(given, "name", None) or getattr(given, "__name__", "metric")).strip("_<>")
        whole = partial(_score if _arguments(given) == 2 else _computed, given)
    else:
        raise UserError(
            f"{setting('metric')}: {shown(given)} is no metric; give a name ({', '.join(METRICS)}), a "
            "torchmetrics metric, compute_metrics, or a function (model, batches) → float"
        )
    better = getattr(given, "higher_is_better", None)
    if not isinstance(better, bool):
        better = not any(word in name.lower() for word in _LOWER)
    return Metric(name, higher_is_better=better, whole=whole)


def _arguments(function: Callable[..., Any]) -> int:
    """Arguments that a function must be given."""
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    places = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return sum(p.default is p.empty for p in places) or len(places)


Read = Callable[[Any, Inputs], Outputs]


def _torchmetrics(metric: Any, model: nn.Module, blocks: Sequence[Batches], read: Read) -> Sequence[float]:
    """The figure of all samples, then of every block, each by a clone of a metric that is left as it is."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def fresh() -> Any:
        clone = metric.clone()
        clone.reset()
        return clone.to(device) if hasattr(clone, "to") else clone

    whole, parts = fresh(), []
    for block in blocks:
        part = fresh()
        for inputs, targets in block:
            given = (_predictions(run(model, inputs), inputs, read, targets), targets)
            part.update(*given)
            whole.update(*given)
        parts.append(_figure(part.compute()))
    return [_figure(whole.compute()), *parts]


def _predictions(output: Any, inputs: Inputs, read: Read, targets: Any) -> Any:
    """What a metric is given: boxes as they are, else the tensor that counts, without an axis of one."""
    if isinstance(output, list) and output and isinstance(output[0], Mapping):
        return output
    found = read(output, inputs).tensors
    if len(found) > 1:
        return found
    one = found[0]
    if isinstance(targets, Tensor) and one.ndim == targets.ndim + 1 and one.shape[-1] == 1:
        one = one[..., 0]
    return one


def _score(
    function: Callable[[nn.Module, Batches], Any], model: nn.Module, blocks: Sequence[Batches], read: Read
) -> Sequence[float]:
    """By a user's function (model, batches) → float; batches are (inputs, targets), on the model's device."""
    parts = [_Chained(blocks), *(blocks if len(blocks) > 1 else ())]
    return [_figure(function(model, part)) for part in parts]


class _Chained:
    """Batches of several blocks, again and again."""

    def __init__(self, blocks: Sequence[Batches]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Any:
        return chain.from_iterable(self._blocks)


def _computed(
    function: Callable[[Any], Any], model: nn.Module, blocks: Sequence[Batches], read: Read
) -> Sequence[float]:
    """By ``compute_metrics``: all predictions at once, as arrays.

    Args:
        function: an object with ``predictions`` and ``label_ids`` → a dict of figures, of which the first
            counts; tokens are padded to one width with −100.
        model, blocks, read: see :data:`coprune.tasks.metrics.Whole`.
    """
    found = [
        [
            (moved(read(run(model, inputs), inputs).tensors, "cpu"), tensors_of(moved(targets, "cpu")))
            for inputs, targets in block
        ]
        for block in blocks
    ]

    def figure(batches: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]]) -> float:
        predictions, targets = (_arrays([batch[column] for batch in batches]) for column in (0, 1))
        return _figure(function(SimpleNamespace(predictions=predictions, label_ids=targets)))

    return [figure(part) for part in ([*chain.from_iterable(found)], *(found if len(found) > 1 else ()))]


def _arrays(batches: Sequence[Sequence[Tensor]]) -> Any:
    """The tensors of all batches as one array each; a single one alone."""
    found = []
    for parts in zip(*batches, strict=True):
        if parts[0].ndim > 1:
            rows = [*chain.from_iterable(parts)]
            found.append(pad_sequence(rows, batch_first=True, padding_value=_PAD).numpy())
        else:
            found.append(torch.cat(parts).numpy())
    return found[0] if len(found) == 1 else tuple(found)


def _figure(given: Any) -> float:
    """One number out of what a metric hands back; of a dict the first, or ``map`` of boxes.

    Raises:
        UserError: there is none.
    """
    if isinstance(given, Mapping) and given:
        given = given.get("map", next(iter(given.values())))
    if isinstance(given, Tensor):
        given = given.double().mean()
    try:
        return float(given)
    except (TypeError, ValueError) as cause:
        raise UserError(f"{setting('metric')} hands back {shown(given)}, which is no number") from cause
