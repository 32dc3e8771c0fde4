"""A data set of a user's own loaders, each under the name of its argument."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader, SequentialSampler, Subset

from coprune.data.dataset import CALIBRATION, DataSet, check_mixed, check_samples, in_memory
from coprune.data.loader import LoaderSource, empty, length_of, opened
from coprune.data.source import Batch, MemorySource, name_of
from coprune.data.subsample import evenly
from coprune.errors import UserError
from coprune.tracing.forward import part_of
from coprune.user_code import within


def from_loaders(
    *,
    train: Iterable[Any],
    heldout: Iterable[Any],
    calibration: Iterable[Any] | None,
    calibration_samples: int,
    validation: Iterable[Any] | None = None,
) -> DataSet:
    """A data set from a user's own loaders.

    The calibration samples are held in memory: they are read several times and must be the same.

    Args:
        train: named ``train=`` in messages.
        heldout: named ``eval=``.
        calibration: read whole, or as far as ``calibration_samples`` where it has no length; None: some of
            ``train`` are taken.
        calibration_samples: how many to take.
        validation: named ``validation=``; read whole.

    Raises:
        UserError: batches that are no (inputs, labels), NaN, an empty loader, one without a length or that
            can be read only once.
    """
    training, reported = (
        given if isinstance(given, LoaderSource | MemorySource) else opened(given, name)
        for given, name in ((train, "train="), (heldout, "eval="))
    )
    taken, notes = _calibration(train, calibration, calibration_samples)
    with within(name_of(taken)):
        check_mixed(taken.labels, where="calibration samples")
    return DataSet(
        name="loaders",
        train=training,
        calibration=taken,
        heldout=reported,
        classes=int(taken.labels.max()) + 1,
        input_shape=taken.input_shape,
        fingerprint=hashlib.sha256(taken.fingerprint().encode()).hexdigest()[:16],
        notes=notes,
        validation=None if validation is None else _judging(validation, taken, train=train, heldout=heldout),
        calibration_from="training samples" if calibration is None else "calibration samples",
    )


def _calibration(
    train: Iterable[Any], calibration: Iterable[Any] | None, count: int
) -> tuple[MemorySource, tuple[str, ...]]:
    """The calibration samples, and what the user should know about how many they are."""
    if isinstance(calibration, MemorySource):
        return calibration, ()
    asked = f"calibration_samples={count}"
    if calibration is None:
        taken = take(_spread(train, count), count, name="train=")
        note = f"{asked}: train= has {len(taken):,} samples, and all of them were taken"
        return taken, (note,) if len(taken) < count != CALIBRATION else ()
    whole = length_of(calibration, "calibration=") is not None
    taken = take(calibration, None if whole else count, name="calibration=")
    if whole:
        note = f"{asked} was not used: calibration= is read whole"
        return taken, (note,) if count != CALIBRATION else ()
    note = f"calibration= has no length; its first {count:,} samples were taken (calibration_samples=)"
    return taken, (note,) if len(taken) == count else ()


def _judging(
    validation: Iterable[Any], calibration: MemorySource, *, train: Iterable[Any], heldout: Iterable[Any]
) -> MemorySource:
    """Validation samples, held in memory, that are none of the other loaders'."""
    for name, other in (("train", train), ("eval", heldout)):
        if getattr(validation, "dataset", validation) is getattr(other, "dataset", other):
            raise UserError(f"validation= and {name}= are one data set; give other samples to judge on")
    found = take(validation, None, name="validation=")
    if type(found) is not type(calibration) or calibration.incompatibility(found):
        raise UserError(
            f"validation= gives samples of {list(found.input_shape)}, "
            f"not of {list(calibration.input_shape)} as the others do"
        )
    return found


def _spread(loader: Iterable[Any], count: int) -> Iterable[Any]:
    """A loader of ``count`` samples from all over a loader that goes through its data set in order.

    Image folders are in the order of the classes, and the first samples would be of one of them.
    """
    if not (isinstance(loader, DataLoader) and isinstance(loader.sampler, SequentialSampler)):
        return loader
    if loader.batch_size is None or count >= len(loader.sampler):
        return loader
    return DataLoader(
        Subset(loader.dataset, evenly(len(loader.sampler), count)),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def take(given: Iterable[Any], count: int | None, *, name: str) -> MemorySource:
    """Samples of a user's loader, held in memory.

    Args:
        given: the loader; one pass is made.
        count: how many, from its start; None: all.
        name: of the argument, as messages call it.

    Raises:
        UserError: see :func:`coprune.data.loader.opened` and :func:`coprune.data.dataset.check_samples`.
    """
    taken: list[Batch] = []
    seen = 0
    source = opened(given.loader if isinstance(given, LoaderSource) else given, name, once=True)
    for inputs, labels in source.batches(0) if count is None else source.checked():
        rest = len(labels) if count is None else count - seen
        taken.append((part_of(inputs, slice(rest)), labels[:rest]))
        seen += len(taken[-1][1])
        if seen == count:
            break
    if not taken:
        raise empty(name)
    with within(name):
        whole = in_memory(taken, name=name)
    check_samples(whole, where=name)
    return whole
