"""What a user's own loader hands out, read as inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from coprune.data.reads import CLASSES, Reads, is_target
from coprune.data.source import Batch
from coprune.errors import UserError, kind_of, setting
from coprune.tracing.forward import Inputs, moved, samples_in, tensors_of
from coprune.user_code import raised

MOST_CLASSES = 1_000_000
"""Labels beyond are taken for ids or pixels, before memory is asked for a million classes."""

_SINGLE = (
    "a single label, so this is a sample and no batch; give a DataLoader over the samples, "
    "DataLoader(dataset, batch_size=128)"
)


def collect(batch: Any, reads: Reads = CLASSES) -> Batch:
    """A batch of a user's own loader as inputs and targets.

    A batch that a loader has put on a GPU comes back to the CPU: samples are held there, and every step takes
    its batch to where it computes.

    Args:
        batch: ``x``, ``(x,)``, ``(x, y)``, ``(x1, x2, y)``, ``((x1, x2), y)``, or named tensors, as 🤗 data
            collators make them; inputs or targets of samples of their own sizes are a list. A classifier's
            has class numbers: ``(inputs, labels)``, or ``labels`` (or ``label``) among named tensors. Of
            images, ``pixel_values`` alone are one tensor.
        reads: what the model takes, which tells inputs from targets.

    Returns:
        Inputs as :func:`coprune.tracing.forward.run` takes them, and targets: class numbers ``[B]`` int64; or
        a tensor ``[B, …]``, a dict or a tuple of such, a list of ``B`` of any kind, or None.

    Raises:
        UserError: anything else, no samples, or not as many of one as of the other.
    """
    given, wanted = _own(batch, reads) if reads.own else _parted(batch, reads)
    if reads.decoder and isinstance(given, Mapping):
        given = _with_decoder(given, wanted, reads.decoder)
    inputs = _inputs(given, reads, _count(wanted))
    if reads.labelled:
        targets: Any = _class_numbers(wanted)
        _check_as_many(inputs, targets)
    else:
        targets = _targets(wanted, _samples(inputs), listed=isinstance(inputs, list))
    if not samples_in(inputs):
        raise UserError("no samples; drop empty batches")
    return moved(inputs, "cpu"), moved(targets, "cpu")


def _with_decoder(
    given: Mapping[str, Any], wanted: Any, shift: Callable[[Tensor], Tensor]
) -> Mapping[str, Any]:
    """Named inputs with what a decoder reads, which 🤗 models make of the labels where it is not there."""
    labels = wanted.get("labels") if isinstance(wanted, Mapping) else wanted
    # Without labels it is for the model to say what it can do: BART shifts what its encoder reads.
    there = any(name.startswith("decoder_") and name != "decoder_attention_mask" for name in given)
    if there or labels is None:
        return given
    try:
        return {**given, "decoder_input_ids": shift(_tensor(labels, "labels", "give tokens [B, T]").long())}
    except (TypeError, ValueError, RuntimeError, IndexError) as cause:
        raise UserError(f"labels do not make what the decoder reads: {raised(cause)}") from cause


def has_class_numbers(batch: Any, reads: Reads = CLASSES) -> bool:
    """Whether a batch is one of a classifier: inputs with one class number a sample."""
    try:
        _, labels = collect(batch, replace(reads, labelled=True))
    except UserError:
        return False
    return len(labels) > 0


def has_targets(batch: Any, reads: Reads) -> bool:
    """Whether a batch has something beside its inputs; what cannot be read has."""
    try:
        return collect(batch, replace(reads, labelled=False))[1] is not None
    except UserError:
        return True


def _own(batch: Any, reads: Reads) -> tuple[Any, Any]:
    """What a user's own function makes of a batch."""
    pair = reads.own(batch) if reads.own else batch
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UserError(f"collect= returns {kind_of(pair)}; return (inputs, targets), or (inputs, None)")
    return pair[0], pair[1]


def _parted(batch: Any, reads: Reads) -> tuple[Any, Any]:
    """What stands for inputs in a batch, and what for targets."""
    if is_dataclass(batch) and not isinstance(batch, type):
        batch = {one.name: getattr(batch, one.name) for one in fields(batch)}
    if isinstance(batch, Mapping):
        return _by_name({str(name): value for name, value in batch.items()}, reads)
    entries = list(batch) if isinstance(batch, tuple | list) and len(batch) else [batch]
    if not reads.labelled or len(entries) in (2, (reads.positional or 1) + 1):
        return _by_place(entries, reads)
    raise UserError(
        f"{kind_of(batch)}; batches are (inputs, labels) pairs of tensors, or named tensors with 'labels'"
    )


def _by_place(given: list[Any], reads: Reads) -> tuple[Any, Any]:
    """``(x1, x2, y)``: as many inputs as the model takes, but for the last where it needs no more."""
    needed, together = reads.positional or 1, isinstance(given[0], tuple | list | Mapping)
    if not together and len(given) < needed:
        raise UserError(f"batches of {len(given)}, but the model takes {needed} inputs; give all of them")
    if not together and len(given) == needed > 1:
        return tuple(given), None
    inputs = 1 if together or len(given) == 1 else min(len(given) - 1, reads.most or len(given))
    left = given[inputs:]
    targets = None if not left else left[0] if len(left) == 1 else tuple(left)
    if inputs > 1:
        return tuple(given[:inputs]), targets
    return list(given[0]) if isinstance(given[0], tuple) else given[0], targets


def _by_name(given: dict[str, Any], reads: Reads) -> tuple[Any, Any]:
    """Named tensors: those that the model takes, and the others; a single one of these without its name."""
    names = ", ".join(given) or "nothing"
    if reads.labelled:
        key = next((k for k in ("labels", "label") if k in given), None)
        if key is None:
            raise UserError(
                f"named tensors without 'labels' ({names}); add them, or give (inputs, labels) pairs"
            )
        return given, given.pop(key)
    given = {name: value for name, value in given.items() if value is not None}
    targets = {n: v for n, v in given.items() if is_target(n) and n not in reads.names}
    others = {n: v for n, v in given.items() if n in reads.names or not (n in targets or _is_text(v))}
    inputs: Any = {n: v for n, v in others.items() if not reads.names or n in reads.names}
    if not inputs:
        # A model of one's own and its data set seldom agree on names: then the first ones are meant.
        taken = list(others)[: len(others) if targets else reads.positional or 1]
        if not taken or (reads.positional or 1) != len(taken):
            known = ", ".join(sorted(reads.names))
            raise UserError(f"named tensors ({names}), none of which the model takes ({known}); rename them")
        inputs = others[taken[0]] if len(taken) == 1 else tuple(others[n] for n in taken)
    elif missing := sorted(reads.required - inputs.keys()):
        raise UserError(f"named tensors ({names}) without '{missing[0]}', which the model needs; add it")
    else:
        taken = list(inputs)
    # Beside labels, what else there is mostly numbers the samples.
    left = targets or {n: v for n, v in others.items() if n not in taken}
    return inputs, next(iter(left.values())) if len(left) == 1 else left or None


def _is_text(value: Any) -> bool:
    return isinstance(next(iter(value), None) if isinstance(value, tuple | list) else value, str | bytes)


def _inputs(given: Any, reads: Reads, targets: int | None) -> Inputs:
    """One tensor, named ones, several by place, or a list of samples of their own sizes.

    Args:
        given: by a loader; a tuple stands for as many arguments, a list for these or for samples.
        reads: what the model takes.
        targets: how many of them there are, where that is plain.
    """
    if isinstance(given, tuple):
        return tuple(_inputs(one, reads, None) for one in given)
    listed = isinstance(given, list) and any(isinstance(one, Tensor | Mapping) for one in given)
    most = 1 if reads.labelled and reads.positional is None else reads.most
    several = listed and (most is None or (reads.positional or 1) <= len(given) <= most)
    if listed and (several or not reads.labelled):
        found = [_inputs(one, reads, None) for one in given]
        sizes = {_count(one) for one in found}
        # Arguments have as many samples as one another; images of their own sizes mostly as many channels.
        if several and len(sizes) == 1 and targets in (None, *sizes):
            return found[0] if len(found) == 1 else tuple(found)
        return found
    if not isinstance(given, Mapping):
        return _tensor(given, "inputs", "give one tensor [B, …], or a dict of named ones")
    plain = (bool, int, float) if not reads.labelled else ()
    named = {
        str(key): value if isinstance(value, plain) else _tensor(value, f"input '{key}'", "drop it")
        for key, value in given.items()
    }
    if not named:
        raise UserError("a batch with no inputs beside its labels; give at least one tensor [B, …]")
    # Images that a 🤗 processor named: every model of images takes them as its first argument.
    return named["pixel_values"] if named.keys() == {"pixel_values"} else named


def _count(given: Any) -> int | None:
    """How many samples something stands for, where that is plain."""
    if isinstance(given, Mapping):
        return next((_count(value) for value in given.values()), None)
    if isinstance(given, tuple | list) and all(isinstance(one, Tensor) for one in given):
        sizes = {_count(one) for one in given}
        return sizes.pop() if len(sizes) == 1 else len(given)
    try:
        return len(given)
    except TypeError:  # None, a number, or a tensor without axes
        return None


def _samples(inputs: Inputs) -> int:
    """Number of samples of inputs that have one."""
    if isinstance(inputs, list):
        return len(inputs)
    sizes = {len(tensor) for tensor in tensors_of(inputs) if tensor.ndim}
    if len(sizes) != 1:
        found = " and ".join(map(str, sorted(sizes))) or "no"
        raise UserError(f"inputs of {found} samples in one batch; give each input [B, …]")
    return sizes.pop()


def _check_as_many(inputs: Inputs, labels: Tensor) -> None:
    if isinstance(inputs, list):
        raise UserError("a list of inputs; a classifier takes one tensor [B, …], so give images of one size")
    for tensor in tensors_of(inputs):
        if tensor.ndim == 0 or len(tensor) != len(labels):
            count = "a single number" if tensor.ndim == 0 else f"{len(tensor)} samples"
            raise UserError(f"{count} but {len(labels)} labels; give one label a sample")


def _targets(given: Any, samples: int, *, listed: bool) -> Any:
    """Targets of any kind, samples first.

    Args:
        given: by a loader.
        samples: how many there are.
        listed: inputs are a list, and so targets are.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        named = {str(n): _targets(v, samples, listed=listed) for n, v in given.items() if v is not None}
        lists = any(isinstance(value, list) for value in named.values())
        return [{n: v[i] for n, v in named.items()} for i in range(samples)] if lists else named
    if isinstance(given, tuple | list) and any(isinstance(one, Tensor | Mapping | str) for one in given):
        apart = listed or any(_count(one) != samples for one in given)
        if apart and len(given) == samples:
            return [_leaf(one) for one in given]
        return tuple(_targets(one, samples, listed=listed) for one in given)
    found = _tensor(given, "targets", "give tensors [B, …], or a list of B of them")
    if found.ndim == 0:
        raise UserError(_SINGLE)
    if len(found) != samples:
        raise UserError(
            f"{samples} samples but {len(found)} targets; give one a sample, or collect= that makes such"
        )
    return found


def _leaf(given: Any) -> Any:
    """What belongs to one sample."""
    if isinstance(given, Mapping):
        return {str(name): _leaf(value) for name, value in given.items()}
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        return given  # a text


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
        raise UserError(_SINGLE)
    if found.ndim != 1:
        several = f"labels.argmax(1) of one-hot ones; of several a sample say {setting('task', 'multilabel')}"
        way = "labels.squeeze(1)" if found.shape[1:] == (1,) else several
        raise UserError(f"labels are class numbers [B], not {list(found.shape)}; give {way}")
    if found.is_complex() or (found.is_floating_point() and not torch.equal(found, found.round())):
        raise UserError(
            f"labels are class numbers, and these are fractions; say {setting('task', 'regression')}"
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
