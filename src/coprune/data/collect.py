"""What a user's own loader hands out, read as inputs and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coprune.data.source import Batch
from coprune.errors import UserError, kind_of
from coprune.tracing.forward import Inputs, moved, tensors_of

MOST_CLASSES = 1_000_000
"""Labels beyond are taken for ids or pixels, before memory is asked for a million classes."""


def collect(batch: Any) -> Batch:
    """A batch of a user's own loader as inputs and labels.

    A batch that a loader has put on a GPU comes back to the CPU: samples are held there, and every step takes
    its batch to where it computes.

    Args:
        batch: ``(inputs, labels)``; or named tensors with ``labels`` (or ``label``) among them, as
            🤗 data collators make them. Of images, ``pixel_values`` alone are one tensor.

    Raises:
        UserError: anything else, labels that are not class numbers ``[B]``, no samples, or not as many inputs
            as labels.
    """
    if isinstance(batch, Mapping):
        given = dict(batch)
        key = next((k for k in ("labels", "label") if k in given), None)
        if key is None:
            names = ", ".join(map(str, given)) or "nothing"
            raise UserError(
                f"named tensors without 'labels' ({names}); add them, or give (inputs, labels) pairs"
            )
        labels = _class_numbers(given.pop(key))
        inputs = _inputs(given)
    elif isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, labels = _inputs(batch[0]), _class_numbers(batch[1])
    else:
        raise UserError(
            f"{kind_of(batch)}; batches are (inputs, labels) pairs of tensors, or named tensors with 'labels'"
        )
    for tensor in tensors_of(inputs):
        if tensor.ndim == 0 or len(tensor) != len(labels):
            count = "a single number" if tensor.ndim == 0 else f"{len(tensor)} samples"
            raise UserError(f"{count} but {len(labels)} labels; give one label a sample")
    if len(labels) == 0:
        raise UserError("no samples; drop empty batches")
    return moved(inputs, "cpu"), labels


def _inputs(given: Any) -> Inputs:
    """One tensor, or named ones."""
    if not isinstance(given, Mapping):
        return _tensor(given, "inputs", "give one tensor [B, …], or a dict of named ones")
    named = {str(key): _tensor(value, f"input '{key}'", "drop it") for key, value in given.items()}
    if not named:
        raise UserError("a batch with no inputs beside its labels; give at least one tensor [B, …]")
    # Images that a 🤗 processor named: every model of images takes them as its first argument.
    return named["pixel_values"] if named.keys() == {"pixel_values"} else named


def _tensor(value: Any, what: str, way_out: str) -> Tensor:
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as cause:
        of = f" of {value.dtype}s" if hasattr(value, "dtype") else ""
        raise UserError(f"{what}: {kind_of(value)}{of}, and no tensor; {way_out}") from cause
    if found.is_meta or found.is_nested or found.layout != torch.strided:
        state = "on the meta device, without values" if found.is_meta else "that is sparse or nested"
        raise UserError(f"{what}: a tensor {state}; give a plain one [B, …]")
    return found


def _class_numbers(labels: Any) -> Tensor:
    """Labels ``[B]`` int64."""
    try:
        found = torch.as_tensor(labels).to_dense().cpu()
    except (TypeError, ValueError, RuntimeError) as cause:
        first = next(iter(labels), None) if isinstance(labels, list | tuple) else labels
        example = f" ({first!r}, …)" if isinstance(first, str | bytes) else ""
        raise UserError(
            f"labels are class numbers [B], not {kind_of(labels)}{example}; number the classes from 0"
        ) from cause
    if found.ndim == 0:
        raise UserError(
            "a single label, so this is a sample and no batch; give a DataLoader over the samples, "
            "DataLoader(dataset, batch_size=128)"
        )
    if found.ndim != 1:
        way = "labels.squeeze(1)" if found.shape[1:] == (1,) else "labels.argmax(1) of one-hot ones"
        raise UserError(f"labels are class numbers [B], not {list(found.shape)}; give {way}")
    if found.is_complex() or (found.is_floating_point() and not torch.equal(found, found.round())):
        raise UserError(
            "labels are class numbers, and these are fractions; a classifier is what is pruned here"
        )
    if not found.is_floating_point():
        found = found.long()  # of unsigned integers some have no least
    check_class_numbers(found)
    return found.long()


def check_class_numbers(labels: Tensor) -> None:
    """Refuse labels ``[N]`` that are below 0, or so high that they are no classes.

    Raises:
        UserError: says which.
    """
    if len(labels) and float(labels.min()) < 0:
        raise UserError(f"negative label {int(labels.min())}; labels count from 0")
    if len(labels) and float(labels.max()) >= MOST_CLASSES:
        raise UserError(f"label {labels.max().item():g}; labels are classes, counted from 0")
