"""Data names, such as ``fashion-mnist`` or ``npz:digits.npz``, to data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from coprune.data import fashion_mnist, npz, tsv
from coprune.data.dataset import CALIBRATION, DataSet, split_arrays
from coprune.data.imagefolder import FolderSource
from coprune.data.names import LOADERS, TEXT_LOADERS, check_known
from coprune.data.source import ArraySource, S
from coprune.data.subsample import drawn_indices, without
from coprune.data.text import Texts, TextSource, longest_text, open_tokenizer, tokenise
from coprune.errors import UserError, setting

SAMPLE_FILE = Path(__file__).parent / "fashion-mnist-sample.npz"
"""8,500 training and 2,000 held-out images, balanced, drawn from Fashion-MNIST by
``benchmarks/make_sample.py``."""


def sample(argument: str | None) -> tuple[ArraySource, ...]:
    """The bundled sample of Fashion-MNIST."""
    if argument:
        raise UserError("fashion-mnist-sample takes no argument; it is part of the package")
    return npz.load(SAMPLE_FILE, name="fashion-mnist-sample", augmentation=fashion_mnist.AUGMENTATION)


def archive(argument: str | None) -> tuple[ArraySource, ...]:
    """Arrays of a user's own."""
    if not argument:
        raise UserError("npz: names no file; write npz:FILE")
    return npz.load(Path(argument).expanduser(), name=f"npz:{argument}")


def load_data(
    name: str,
    *,
    calibration: int = CALIBRATION,
    seed: int = 0,
    tokenizer: str | Path | None = None,
    class_order: Sequence[str] | None = None,
    validation: str | None = None,
) -> DataSet:
    """Load a data set by name and set a calibration part aside.

    Args:
        name: ``fashion-mnist[:ROOT]``, ``fashion-mnist-sample``, ``cifar10[:ROOT]``, ``cifar100[:ROOT]``,
            ``imagefolder:ROOT[@SIZE]``, ``npz:FILE``, or texts: ``tsv:FILE``, ``sst5:ROOT``,
            ``mnli:ROOT``, ``mnli-mm:ROOT``, ``hf:NAME[:CONFIG]``.
        calibration: samples taken out of the training part, the classes in their proportion; at most a
            quarter of it is taken.
        seed: which samples are drawn for calibration.
        tokenizer: a folder or hub id; for texts.
        class_order: what a trained model calls its classes; texts whose classes have the same names are
            labelled in that order.
        validation: what judges: the name of other data (its held-out part), a number of samples taken out of
            the held-out part, or ``none``; the data's own validation part when not given.

    Raises:
        UserError: an unknown name (with near matches), unusable data, texts without a tokenizer.
    """
    check_known(name)
    head, _, argument = name.partition(":")
    if calibration < 0:
        raise UserError(f"{setting('calibration_samples', calibration)}: a number of samples, 0 or more")
    if head in TEXT_LOADERS:
        if tokenizer is None:
            raise UserError(
                f"{name} is text and needs a tokenizer: use a model such as hf:DIR, or --tokenizer DIR"
            )
        texts, names, notes = _tokenised(name, str(tokenizer), class_order, validation)
        return _divided(texts, validation, names, notes, name=name, calibration=calibration, seed=seed)
    parts: tuple[Any, ...] = LOADERS[head](argument or None)
    if _is_name(validation):
        check_known(validation, of_texts=False)
        other, _, where = validation.partition(":")
        parts = (*parts[:2], LOADERS[other](where or None)[-1])
    names = parts[0].names if isinstance(parts[0], FolderSource) else ()
    return _divided(parts, validation, names, (), name=name, calibration=calibration, seed=seed)


def _is_name(validation: str | None) -> TypeGuard[str]:
    return validation not in (None, "none") and not str(validation).isdecimal()


def _divided(
    parts: tuple[S, ...],
    validation: str | None,
    names: tuple[str, ...],
    notes: tuple[str, ...],
    *,
    name: str,
    calibration: int,
    seed: int,
) -> DataSet:
    train, heldout, *own = parts
    if calibration and 0 < len(train) < 4:
        raise UserError(f"{name}: {len(train)} training samples are too few to set any aside")
    # A small data set must keep most of its samples for training.
    taken = min(calibration, len(train) // 4)
    if taken < calibration != CALIBRATION:
        notes = (
            *notes,
            f"{taken:,} calibration samples, a quarter of the training part, not {calibration:,}",
        )
    judging = own[0] if own and validation != "none" else None
    if validation is not None and validation.isdecimal():
        heldout, judging = _parted(heldout, int(validation), name=name)
    return split_arrays(
        train,
        heldout,
        name=name,
        calibration=taken,
        seed=seed,
        names=names,
        notes=notes,
        validation=judging,
    )


def _parted(heldout: S, count: int, *, name: str) -> tuple[S, S]:
    """Held-out samples without so many of them, and these; the same ones in every run."""
    if not 0 < count < len(heldout):
        raise UserError(
            f"{setting('validation', count)}: {name} has {len(heldout):,} held-out samples; give a number "
            f"between 0 and that, e.g. {len(heldout) // 2}"
        )
    drawn = drawn_indices(heldout.labels, count, seed=0)
    return heldout.take(without(drawn, len(heldout))), heldout.take(drawn)


def _other_texts(name: str, names: tuple[str, ...]) -> Texts:
    """The held-out texts of other data, or all of a table without parts, labelled as these classes are."""
    check_known(name, of_texts=True)
    head, _, argument = name.partition(":")
    if head == "tsv":
        parts = tsv.parts_of(argument or None)
        texts = next(parts[part] for part in ("dev", "test", "train") if part in parts)
    else:
        texts = TEXT_LOADERS[head](argument or None)[-1]
    unknown = sorted(set(texts.names) - set(names))
    if unknown:
        raise UserError(
            f"{setting('validation', name)}: class '{unknown[0]}' is none of {', '.join(names[:5])}"
        )
    return texts.numbered_as(names)


def _tokenised(
    name: str, tokenizer: str, class_order: Sequence[str] | None, validation: str | None
) -> tuple[tuple[TextSource, ...], tuple[str, ...], tuple[str, ...]]:
    """Training, held-out and perhaps validation texts as tokens, the names of the classes, and notes."""
    head, _, argument = name.partition(":")
    opened = open_tokenizer(tokenizer)
    texts = TEXT_LOADERS[head](argument or None)
    if _is_name(validation):
        texts = (*texts[:2], _other_texts(validation, texts[0].names))
    if class_order is not None:
        texts = tuple(part.ordered(class_order) for part in texts)
    longest = longest_text(opened)
    sources = tuple(tokenise(part, opened, max_length=longest) for part in texts)
    notes = []
    for part, source in zip(("training", "held-out", "validation"), sources, strict=False):
        if source.truncated is not None:
            count = int(source.truncated.sum())
            notes.append(
                f"{count:,} of {len(source):,} {part} texts are longer than the {longest} tokens that the "
                "model takes; their ends were left out"
            )
    return sources, texts[0].names, tuple(notes)
