"""Data names, such as ``fashion-mnist`` or ``npz:digits.npz``, to data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from coprune.data import cifar, fashion_mnist, glue, hub, imagefolder, npz, tsv
from coprune.data.dataset import DataSet, split_arrays
from coprune.data.imagefolder import FolderSource
from coprune.data.source import ArraySource, S
from coprune.data.text import Texts, TextSource, longest_text, open_tokenizer, tokenise
from coprune.errors import UserError, near_matches
from coprune.given import kind_of

SAMPLE_FILE = Path(__file__).parent / "fashion-mnist-sample.npz"
"""8,500 training and 2,000 held-out images, balanced, drawn from Fashion-MNIST by
``benchmarks/make_sample.py``."""

Loader = Callable[[str | None], tuple[ArraySource, ArraySource] | tuple[FolderSource, FolderSource]]
TextLoader = Callable[[str | None], tuple[Texts, Texts]]


def _sample(argument: str | None) -> tuple[ArraySource, ArraySource]:
    if argument:
        raise UserError("fashion-mnist-sample takes no argument; it is part of the package")
    return npz.load(SAMPLE_FILE, name="fashion-mnist-sample", augmentation=fashion_mnist.AUGMENTATION)


def _npz(argument: str | None) -> tuple[ArraySource, ArraySource]:
    if not argument:
        raise UserError("npz: names no file; write npz:FILE")
    return npz.load(Path(argument).expanduser(), name=f"npz:{argument}")


LOADERS: dict[str, Loader] = {
    "fashion-mnist": fashion_mnist.load,
    "fashion-mnist-sample": _sample,
    "cifar10": cifar.load_cifar10,
    "cifar100": cifar.load_cifar100,
    "imagefolder": imagefolder.load,
    "npz": _npz,
}

TEXT_LOADERS: dict[str, TextLoader] = {
    "tsv": tsv.load,
    "sst5": glue.load_sst5,
    "mnli": glue.load_mnli,
    "mnli-mm": glue.load_mnli_mismatched,
    "hf": hub.load,
}


def is_text(name: str) -> bool:
    """Whether a data name stands for texts."""
    return name.partition(":")[0] in TEXT_LOADERS


def load_data(
    name: str,
    *,
    calibration: int = 2000,
    seed: int = 0,
    tokenizer: str | Path | None = None,
    class_order: Sequence[str] | None = None,
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

    Raises:
        UserError: an unknown name (with near matches), unusable data, texts without a tokenizer.
    """
    if not isinstance(name, str):
        raise UserError(
            f"{kind_of(name)} is no name of data; known: {', '.join({**LOADERS, **TEXT_LOADERS})}"
        )
    head, _, argument = name.partition(":")
    known = {**LOADERS, **TEXT_LOADERS}
    if head not in known:
        raise UserError(f"unknown data '{name}'; {near_matches(head, known)}")
    if calibration < 0:
        raise UserError(f"--calibration {calibration}: a number of samples, 0 or more")
    if head in TEXT_LOADERS:
        if tokenizer is None:
            raise UserError(
                f"{name} is text and needs a tokenizer: use a model such as hf:DIR, or --tokenizer DIR"
            )
        read = _tokenised(name, str(tokenizer), class_order)
        return _divided(*read, name=name, calibration=calibration, seed=seed)
    train, heldout = LOADERS[head](argument or None)
    names = train.names if isinstance(train, FolderSource) else ()
    return _divided(train, heldout, names, (), name=name, calibration=calibration, seed=seed)


def _divided(
    train: S,
    heldout: S,
    names: tuple[str, ...],
    notes: tuple[str, ...],
    *,
    name: str,
    calibration: int,
    seed: int,
) -> DataSet:
    if calibration and 0 < len(train) < 4:
        raise UserError(f"{name}: {len(train)} training samples are too few to set any aside")
    return split_arrays(
        train,
        heldout,
        name=name,
        # A small data set must keep most of its samples for training.
        calibration=min(calibration, len(train) // 4),
        seed=seed,
        names=names,
        notes=notes,
    )


def _tokenised(
    name: str, tokenizer: str, class_order: Sequence[str] | None
) -> tuple[TextSource, TextSource, tuple[str, ...], tuple[str, ...]]:
    """Training and held-out texts as tokens, the names of the classes, and notes."""
    head, _, argument = name.partition(":")
    opened = open_tokenizer(tokenizer)
    texts = TEXT_LOADERS[head](argument or None)
    if class_order is not None:
        texts = texts[0].ordered(class_order), texts[1].ordered(class_order)
    longest = longest_text(opened)
    train, heldout = (tokenise(part, opened, max_length=longest) for part in texts)
    notes = []
    for part, source in (("training", train), ("held-out", heldout)):
        if source.truncated is not None:
            count = int(source.truncated.sum())
            notes.append(
                f"{count:,} of {len(source):,} {part} texts are longer than the {longest} tokens that the "
                "model takes; their ends were left out"
            )
    return train, heldout, texts[0].names, tuple(notes)
