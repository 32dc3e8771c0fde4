"""A named data set in three parts, and the checks every data set passes before any work starts.

*train* is what fine-tuning sees, *calibration* is what every decision is based on (statistics,
budget search, early stopping) and *held-out* is only ever reported. Calibration samples are taken
out of the training part, so that the three never share a sample. Where there is a fourth part, *validation*,
it judges instead: a base model may have learned its calibration samples by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coprune.data.collect import check_class_numbers
from coprune.data.loader import LoaderSource
from coprune.data.source import Batch, MemorySource, S, Source
from coprune.data.subsample import classes_of, drawn_indices, taken_out, without
from coprune.data.text import TextSource
from coprune.data.trees import TreeSource
from coprune.errors import UserError, setting
from coprune.result import JudgedOn
from coprune.tracing.forward import Inputs
from coprune.user_code import within


@dataclass(frozen=True)
class DataSet:
    """The sources and what a model must fit.

    Attributes:
        name: the name it was loaded by.
        train: None where there are calibration samples only.
        classes: number of classes ``C``, labels are ``0 … C−1``; None without class numbers.
        input_shape: shape of one sample, without the batch; of texts ``(L,)``, the tokens of the longest; of
            several inputs a tree of such.
        fingerprint: digest of the calibration and held-out samples.
        names: what the classes are called, when the data says so.
        notes: what the user should know about how the data was read.
        validation: judges, where there is one.
        calibration_from: what the calibration samples are, as :class:`coprune.result.Judged` says it.
    """

    name: str
    train: Source | None
    calibration: Source
    heldout: Source
    classes: int | None
    input_shape: Any
    fingerprint: str
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    validation: Source | None = None
    calibration_from: JudgedOn = "training samples set aside"

    @property
    def training(self) -> Source:
        """What is trained on.

        Raises:
            UserError: there is nothing.
        """
        if self.train is None:
            raise UserError(f"training needs training samples; give {setting('train')}")
        return self.train

    @property
    def judging(self) -> Source:
        """What judges where nothing is to be set aside for it."""
        return self.calibration if self.validation is None else self.validation

    @property
    def is_text(self) -> bool:
        """Whether a model reads named tensors of tokens."""
        return isinstance(self.calibration, TextSource)


CALIBRATION = 2000
"""Calibration samples unless somebody asks for another number."""


def check_samples(source: MemorySource) -> None:
    """Refuse data that would only fail later, with the cause in one line.

    Raises:
        UserError: no samples, lengths that differ, NaN or Inf, empty texts, labels that are negative.
    """
    if error := source.validation_error():
        raise UserError(error)
    if not len(source):
        raise UserError("no samples; give at least two of each class")
    if source.labels is not None:
        check_class_numbers(source.labels)


def check_mixed(labels: Tensor, *, where: str) -> None:
    """Refuse samples that are all of one class: nothing that is decided on them holds for the others.

    Args:
        labels: ``[N]`` int64.
        where: how the message names the samples.

    Raises:
        UserError: there is one class only.
    """
    if len(labels) > 1 and bool((labels == labels[0]).all()):
        raise UserError(
            f"{where}: all {len(labels):,} are of class {int(labels[0])}; give samples of all classes, mixed"
        )


def check_classes(labels: Tensor, classes: int, *, where: str) -> None:
    """Refuse calibration samples from which no statistics of every class can be made.

    Args:
        labels: ``[N]`` int64 of the calibration set.
        classes: number of classes ``C`` of the data set.
        where: how the message names the data.

    Raises:
        UserError: a class with fewer than two calibration samples.
    """
    counts = torch.bincount(labels, minlength=classes)
    short = torch.nonzero(counts < 2).flatten().tolist()
    if short == [0] and not counts[0]:
        raise UserError(f"{where}: no calibration sample of class 0; labels count from 0")
    if short:
        named = listed([f"{c} ({int(counts[c])})" for c in short])
        raise UserError(
            f"{where}: fewer than two calibration samples of class {named}; this method describes every "
            f"class; raise {setting('calibration_samples')} or add samples of that class"
        )


def listed(items: Sequence[object], *, most: int = 5) -> str:
    """The first of some things and how many more there are, as a message names them."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def divide(
    parts: Sequence[S],
    *,
    name: str,
    calibration: int,
    seed: int,
    names: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> DataSet:
    """Make a :class:`DataSet` by taking calibration samples out of training (:func:`drawn_indices`).

    Args:
        parts: all training samples, those accuracy is reported on, and perhaps those that judge.
        name: the data set's name, also used in messages.
        calibration: how many samples to set aside; 0 keeps all of them for training.
        seed: which samples are drawn.
        names: what the classes are called.
        notes: passed on.

    Raises:
        UserError: see :func:`check_samples`; also training samples of one class only, or validation samples
            of classes that there are none of, or that are the others.
    """
    train, heldout, *judging = parts
    for part, what in zip(parts, ("train", "held-out", "validation"), strict=False):
        with within(f"{name}, {what}"):
            check_samples(part)
            error = train.incompatibility(part) if type(part) is type(train) else "another kind of data"
            if error:
                raise UserError(error.replace("held-out", what))
    classes = None
    if train.labels is not None and heldout.labels is not None:
        classes = max(int(train.labels.max()) + 1, int(heldout.labels.max()) + 1, len(names))
        check_mixed(train.labels, where=f"{name}, training samples")
    for validation in judging:
        highest = -1 if validation.labels is None else int(validation.labels.max())
        if classes is not None and highest >= classes:
            raise UserError(f"{name}, validation: label {highest} is outside its {classes} classes")
        for other, what in ((train, "training"), (heldout, "held-out")):
            if validation.fingerprint() == other.fingerprint():
                said = f"its samples are the {what} ones of {name}; give others"
                raise UserError(f"{setting('validation')}: {said}")
    left, taken = (None, train) if calibration == len(train) else taken_out(train, calibration, seed=seed)
    if taken.labels is not None and heldout.labels is not None and calibration:
        unseen = sorted(set(heldout.labels.tolist()) - set(taken.labels.tolist()))
        if unseen:
            notes = (*notes, f"no calibration sample of class {listed(unseen)}, which held-out samples have")
    return DataSet(
        name=name,
        train=left,
        calibration=taken,
        heldout=heldout,
        classes=classes,
        input_shape=train.input_shape,
        fingerprint=f"{taken.fingerprint()}-{heldout.fingerprint()}",
        names=names,
        notes=notes,
        validation=judging[0] if judging else None,
    )


def limited(source: Source, count: int, *, seed: int) -> Source:
    """At most ``count`` samples of a source, see :func:`drawn_indices`.

    Raises:
        UserError: a user's own loader, of which nothing can be drawn.
    """
    if count >= len(source):
        return source
    if not isinstance(source, MemorySource):
        raise UserError("training on a part of the samples needs data in memory; cut the loader yourself")
    return source.take(drawn_indices(classes_of(source), count, seed=seed))


def in_memory(batches: Sequence[Batch], *, labelled: bool = True, name: str = "") -> TextSource | TreeSource:
    """Batches of a user's own loader, held in memory: as texts where they are such, padded on the right.

    Args:
        batches: at least one; inputs and targets with samples first.
        labelled: targets are class numbers ``[B]``, and samples must be of one shape, or texts.
        name: what messages call the samples.

    Raises:
        UserError: labelled inputs of several shapes, or named ones that are not those of a text model.
    """
    named = [x for x, _ in batches if isinstance(x, dict)]
    targets = [y for _, y in batches]
    whole = all(isinstance(y, Tensor) and y.ndim == 1 and y.dtype == torch.int64 for y in targets)
    if len(named) == len(batches) and (whole or all(y is None for y in targets)):
        try:
            return TextSource.from_batches(named, torch.cat(targets) if whole else None, name=name)
        except UserError:
            if labelled:
                raise
    if labelled:
        _check_one_kind([x for x, _ in batches], named=bool(named))
    if len({y is None for y in targets}) > 1:
        raise UserError("some of the loader's batches have targets and some have none; give them to all")
    return TreeSource.of(batches, labelled=labelled, name=name)


def _check_one_kind(inputs: Sequence[Inputs], *, named: bool) -> None:
    if named:
        raise UserError("some of the loader's batches are named tensors and some are not; give one kind")
    shapes = sorted({tuple(x.shape[1:]) for x in inputs if isinstance(x, Tensor)})
    if len(shapes) > 1:
        one, other = (", ".join(map(str, ("B", *shape))) for shape in shapes[:2])
        raise UserError(
            f"the loader's batches are of several shapes, [{one}] and [{other}] among them; samples that are "
            "held together need one"
        )
    if len(kinds := sorted({str(x.dtype) for x in inputs if isinstance(x, Tensor)})) > 1:
        raise UserError(f"the loader's batches are of {' and '.join(kinds)}; give one of them")


def split_source(source: Source, parts: Sequence[float], *, seed: int) -> list[MemorySource]:
    """Cut a source into parts that each stand for all of it, e.g. statistics and search.

    Args:
        source: samples that fit in memory (a calibration set does).
        parts: the share of each part; they sum to at most 1.
        seed: the draw.

    Returns:
        One in-memory source a share, disjoint, drawn one after the other as :func:`drawn_indices` does.
    """
    if not isinstance(source, MemorySource):
        labelled = not isinstance(source, LoaderSource) or source.reads.labelled
        source = in_memory(list(source.batches(256)), labelled=labelled)
    out: list[MemorySource] = []
    left, classes = torch.arange(len(source)), classes_of(source)
    for share in parts:
        index = drawn_indices(classes[left], round(share * len(source)), seed=seed)
        out.append(source.take(left[index]))
        left = left[without(index, len(left))]
    return out
