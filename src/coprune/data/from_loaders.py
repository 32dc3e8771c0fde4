"""A data set of a user's own loaders, each under the name of its argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, SequentialSampler, Subset

from coprune.data.dataset import CALIBRATION, DataSet, check_mixed, check_samples, in_memory
from coprune.data.loader import LoaderSource, empty, length_of, opened
from coprune.data.reads import CLASSES, Reads
from coprune.data.source import Batch, MemorySource, Source, digest, name_of
from coprune.data.subsample import evenly, taken_out
from coprune.errors import UserError
from coprune.tracing.forward import part_of, samples_in
from coprune.user_code import within

REPORTED = 0.2
"""Share of the calibration samples that figures are of where no others are given."""


def from_loaders(
    *,
    train: Iterable[Any] | None = None,
    heldout: Iterable[Any] | None = None,
    calibration: Iterable[Any] | None = None,
    calibration_samples: int = CALIBRATION,
    validation: Iterable[Any] | None = None,
    reads: Reads = CLASSES,
) -> DataSet:
    """A data set from a user's own loaders.

    The calibration samples are held in memory: they are read several times and must be the same.

    Args:
        train: named ``train=`` in messages; None: nothing is trained.
        heldout: named ``eval=``; without class numbers a stream will do, read as far as
            ``calibration_samples``; None: some calibration samples are set aside (:data:`REPORTED`).
        calibration: read whole, or as far as ``calibration_samples`` where it has no length; None: some of
            ``train`` are taken.
        calibration_samples: how many to take.
        validation: named ``validation=``; read whole.
        reads: what of a batch are inputs.

    Raises:
        UserError: neither training nor calibration samples, batches that are none, NaN, an empty loader, one
            without a length or that can be read only once, or too few samples to set some aside.
    """
    training = None if train is None and calibration is not None else _source(train, "train=", reads)
    reported: Source | None = None
    notes: tuple[str, ...] = ()
    if heldout is not None and not reads.labelled and _is_stream(heldout):
        reported, notes = _of_a_stream(heldout, calibration_samples, "eval=", reads)
    elif heldout is not None:
        reported = _source(heldout, "eval=", reads)
    taken, said = _calibration(train, calibration, calibration_samples, reads)
    notes += said
    if reported is None:
        if (count := round(REPORTED * len(taken)) or 1) == len(taken):
            raise UserError(f"{name_of(taken)}: a single sample; give more, and held-out ones as eval=")
        taken, reported = taken_out(taken, count, seed=0)
        notes += (f"no eval=: figures are of {count:,} of the calibration samples, set aside for that",)
    with within(name_of(taken)):
        if taken.labels is not None:
            check_mixed(taken.labels, where="calibration samples")
    return DataSet(
        name="loaders",
        train=training,
        calibration=taken,
        heldout=reported,
        classes=None if taken.labels is None else int(taken.labels.max()) + 1,
        input_shape=taken.input_shape,
        fingerprint=digest(taken.fingerprint()),
        notes=notes,
        validation=_judging(validation, taken, reads, {"train": train, "eval": heldout}),
        calibration_from="training samples" if calibration is None else "calibration samples",
    )


def _source(given: Any, name: str, reads: Reads) -> Source:
    return given if isinstance(given, LoaderSource | MemorySource) else opened(given, name, reads=reads)


def _is_stream(given: Any) -> bool:
    """Whether samples come one after the other, with no saying how many, or once only."""
    return isinstance(given, Iterator) or (isinstance(given, Iterable) and length_of(given, "eval=") is None)


def _of_a_stream(given: Any, count: int, name: str, reads: Reads) -> tuple[MemorySource, tuple[str, ...]]:
    """Its first samples, and what the user should know about how many they are."""
    taken = take(given, count, name=name, reads=reads)
    note = f"{name} has no length; its first {count:,} samples were taken (calibration_samples=)"
    return taken, (note,) if len(taken) == count else ()


def _calibration(
    train: Iterable[Any] | None, calibration: Iterable[Any] | None, count: int, reads: Reads
) -> tuple[MemorySource, tuple[str, ...]]:
    """The calibration samples, and what the user should know about how many they are."""
    if isinstance(calibration, MemorySource):
        return calibration, ()
    asked = f"calibration_samples={count}"
    if calibration is None:
        taken = take(_spread(train, count), max(1, count), name="train=", reads=reads)
        note = f"{asked}: train= has {len(taken):,} samples, and all of them were taken"
        return taken, (note,) if len(taken) < count != CALIBRATION else ()
    if length_of(calibration, "calibration=") is None:
        return _of_a_stream(calibration, count, "calibration=", reads)
    note = f"{asked} was not used: calibration= is read whole"
    whole = take(calibration, None, name="calibration=", reads=reads)
    return whole, (note,) if count != CALIBRATION else ()


def _judging(
    given: Iterable[Any] | None, calibration: MemorySource, reads: Reads, others: Mapping[str, Any]
) -> MemorySource | None:
    """Validation samples, held in memory, that are none of the other loaders'."""
    if given is None:
        return None
    for name, other in others.items():
        if getattr(given, "dataset", given) is getattr(other, "dataset", other):
            raise UserError(f"validation= and {name}= are one data set; give other samples to judge on")
    found = take(given, None, name="validation=", reads=reads)
    if type(found) is not type(calibration) or calibration.incompatibility(found):
        shapes = [source.input_shape for source in (found, calibration)]
        mine, theirs = (list(shape) if isinstance(shape, tuple) else shape for shape in shapes)
        raise UserError(f"validation= gives samples of {mine}, not of {theirs} as the others do")
    return found


def _spread(loader: Any, count: int) -> Iterable[Any]:
    """A loader of ``count`` samples from all over a loader that goes through its data set in order.

    Image folders are in the order of the classes, and the first samples would be of one of them.
    """
    in_order = isinstance(loader, DataLoader) and isinstance(loader.sampler, SequentialSampler)
    if not in_order or loader.batch_size is None or count >= len(loader.sampler):
        return loader
    return DataLoader(
        Subset(loader.dataset, evenly(len(loader.sampler), count)),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )


def take(given: Iterable[Any], count: int | None, *, name: str, reads: Reads = CLASSES) -> MemorySource:
    """Samples of a user's loader, held in memory.

    Args:
        given: the loader; one pass is made.
        count: how many, from its start; None: all.
        name: of the argument, as messages call it.
        reads: what of a batch are inputs.

    Raises:
        UserError: see :func:`coprune.data.loader.opened` and :func:`coprune.data.dataset.check_samples`.
    """
    taken: list[Batch] = []
    seen = 0
    source = opened(given.loader if isinstance(given, LoaderSource) else given, name, once=True, reads=reads)
    for inputs, targets in source.batches(0) if count is None else source.checked():
        here = slice(None if count is None else count - seen)
        taken.append((part_of(inputs, here), part_of(targets, here)))
        seen += samples_in(taken[-1][0])
        if seen == count:
            break
    if not taken:
        raise empty(name)
    with within(name):
        whole = in_memory(taken, labelled=reads.labelled, name=name)
        check_samples(whole)
    return whole
