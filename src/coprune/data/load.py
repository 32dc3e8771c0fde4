"""A data set by its name: its parts, the samples set aside, and the tokens of its texts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coprune.data import tsv
from coprune.data.dataset import CALIBRATION, DataSet, divide
from coprune.data.language import packed, paired
from coprune.data.names import LOADERS, TEXT_LOADERS, check_known, is_text
from coprune.data.reads import Reads
from coprune.data.source import MemorySource
from coprune.data.subsample import taken_out
from coprune.data.text import Texts
from coprune.data.tokenizer import longest_text, open_tokenizer, tokenise
from coprune.data.user_loaders import user_loaders
from coprune.errors import UserError, setting
from coprune.user_factory import PYTHON

BLOCK = 128
"""Tokens of a language model's samples, unless somebody asks for another number."""


def load_data(
    name: str,
    *,
    calibration: int = CALIBRATION,
    seed: int = 0,
    tokenizer: str | Path | None = None,
    class_order: Sequence[str] | None = None,
    validation: str | None = None,
    task: str | None = None,
    max_length: int | None = None,
    reads: Reads | None = None,
    training: bool = True,
) -> DataSet:
    """Load a data set by name and set a calibration part aside.

    Args:
        name: ``fashion-mnist[:ROOT]``, ``fashion-mnist-sample``, ``cifar10[:ROOT]``, ``cifar100[:ROOT]``,
            ``imagefolder:ROOT[@SIZE]``, ``folder:ROOT[@SIZE]`` (no labels), ``npz:FILE``; texts:
            ``tsv:FILE``, ``lines:FILE`` (no labels), ``sst5:ROOT``, ``mnli:ROOT``, ``mnli-mm:ROOT``; texts or
            images: ``hf:NAME[:CONFIG]``; what a function returns: ``python:package.module:loaders``.
        calibration: samples taken out of the training part, the classes in their proportion.
        seed: which samples are drawn for calibration.
        tokenizer: a folder or hub id; for texts.
        class_order: what a trained model calls its classes; texts whose classes have the same names are
            labelled in that order.
        validation: what judges: the name of other data (its held-out part), a number of samples taken out of
            the held-out part, or ``none``; the data's own validation part when not given.
        task: what targets are: ``classification`` needs class numbers, ``text-generation`` makes blocks of
            tokens of all texts, ``seq2seq`` takes second texts, others what there is; None: class numbers
            where there are integers.
        max_length: tokens of a text at most (the rest is left out), or of a block (128); what the tokenizer
            says when not given.
        reads: what of a user's batch a model takes, see :class:`coprune.data.Reads`.
        training: whether the others are to be trained on: then at most a quarter is set aside.

    Raises:
        UserError: an unknown name (with near matches), unusable data, texts without a tokenizer.
    """
    check_known(name)
    if calibration < 0:
        raise UserError(f"{setting('calibration_samples', calibration)}: a number of samples, 0 or more")
    if name.startswith(PYTHON):
        return user_loaders(name, calibration=calibration, seed=seed, task=task, reads=reads)
    notes: list[str] = []
    if is_text(name) and tokenizer is None and not name.startswith("hf:"):
        raise _no_tokenizer(name)
    parts = _parts(name, validation, task)
    of_texts = isinstance(parts[0], Texts)
    if of_texts and class_order:
        parts = tuple(part.ordered(class_order) for part in parts)
    names = getattr(parts[0], "names", ())
    if of_texts:
        if tokenizer is None:
            raise _no_tokenizer(name)
        opened = open_tokenizer(str(tokenizer))
        parts, notes = _tokenised(parts, opened, name=name, task=task, max_length=max_length)
    train, heldout, *_ = parts
    if calibration and training and 0 < len(train) < 4:
        raise UserError(f"{name}: {len(train)} training samples are too few to set any aside")
    # A small data set must keep most of its samples for training.
    taken = min(calibration, len(train) // 4 if training else len(train))
    if taken < calibration != CALIBRATION:
        part = "a quarter" if training else "all"
        notes.append(f"{taken:,} calibration samples, {part} of the training part, not {calibration:,}")
    if validation is not None and validation.isdecimal():
        if not 0 < int(validation) < len(heldout):
            raise UserError(
                f"{setting('validation', int(validation))}: {name} has {len(heldout):,} held-out samples; "
                f"give a number between 0 and that, e.g. {len(heldout) // 2}"
            )
        parts = (train, *taken_out(heldout, int(validation), seed=0))  # the same ones in every run
    return divide(parts, name=name, calibration=taken, seed=seed, names=names, notes=tuple(notes))


def _no_tokenizer(name: str) -> UserError:
    return UserError(f"{name} is text and needs a tokenizer: use a model such as hf:DIR, or --tokenizer DIR")


def _read(name: str, task: str | None, *, judges: bool = False) -> tuple[Any, ...]:
    """What a loader reads; the task is told to those that have an argument for it."""
    head, _, argument = name.partition(":")
    loader = tsv.judging if judges and head == "tsv" else (TEXT_LOADERS if is_text(name) else LOADERS)[head]
    told = {"task": task} if "task" in inspect.signature(loader).parameters else {}
    return loader(argument or None, **told)


def _parts(name: str, validation: str | None, task: str | None) -> tuple[Any, ...]:
    """Training and held-out samples, and those that judge: own ones, or of other data where that is named."""
    parts = _read(name, task)
    if validation is None:
        return parts
    if validation == "none" or validation.isdecimal():
        return parts[:2]
    of_texts = is_text(name)
    check_known(validation, of_texts=of_texts)
    found = _read(validation, task, judges=True)[-1]
    names = parts[0].names if of_texts else ()
    if not names or not isinstance(found, Texts):
        return (*parts[:2], found)
    if unknown := sorted(set(found.names) - set(names)):
        raise UserError(
            f"{setting('validation', validation)}: class '{unknown[0]}' is none of {', '.join(names[:5])}"
        )
    return (*parts[:2], found.numbered_as(names))


def _tokenised(
    texts: Sequence[Texts], tokenizer: Any, *, name: str, task: str | None, max_length: int | None
) -> tuple[tuple[MemorySource, ...], list[str]]:
    """Training, held-out and perhaps validation texts as tokens, and notes on what was cut."""
    longest = longest_text(tokenizer, otherwise=max_length or 512)
    if task == "text-generation":
        block = min(max_length or BLOCK, longest)
        return tuple(packed(part.text, tokenizer, block=block) for part in texts), []
    longest = min(max_length or longest, longest)
    if task == "seq2seq":
        return tuple(paired(part, tokenizer, max_length=longest) for part in texts), []
    sources, notes = [], []
    for part, what in zip(texts, ("training", "held-out", "validation"), strict=False):
        if not part:
            raise UserError(f"{name}: no {what} samples; give at least two of each class")
        sources.append(source := tokenise(part, tokenizer, max_length=longest))
        if source.truncated is not None:
            notes.append(
                f"{int(source.truncated.sum()):,} of {len(source):,} {what} texts are longer than the "
                f"{longest} tokens that the model takes; their ends were left out"
            )
    return tuple(sources), notes
