"""Data names, such as ``fashion-mnist`` or ``npz:digits.npz``, to data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coprune.data import fashion_mnist, npz
from coprune.data.dataset import DataSet, split_arrays
from coprune.data.source import ArraySource
from coprune.errors import UserError, near_matches

SAMPLE_FILE = Path(__file__).parent / "fashion-mnist-sample.npz"
"""8,500 training and 2,000 held-out images, balanced, drawn from Fashion-MNIST by
``benchmarks/make_sample.py``."""

Loader = Callable[[str | None], tuple[ArraySource, ArraySource]]


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
    "npz": _npz,
}


def load_data(name: str, *, calibration: int = 2000, seed: int = 0) -> DataSet:
    """Load a data set by name and set a calibration part aside.

    Args:
        name: ``fashion-mnist[:ROOT]``, ``fashion-mnist-sample`` or ``npz:FILE``.
        calibration: samples taken out of the training part, balanced over the classes; at most a
            quarter of it is taken.
        seed: which samples are drawn for calibration.

    Raises:
        UserError: an unknown name (with near matches) or unusable data.
    """
    head, _, argument = name.partition(":")
    if head not in LOADERS:
        raise UserError(f"unknown data '{name}'; {near_matches(head, LOADERS)}")
    if calibration < 0:
        raise UserError(f"--calibration {calibration}: a number of samples, 0 or more")
    train, heldout = LOADERS[head](argument or None)
    if calibration and 0 < len(train) < 4:
        raise UserError(f"{name}: {len(train)} training samples are too few to set any aside")
    # A small data set must keep most of its samples for training.
    return split_arrays(train, heldout, name=name, calibration=min(calibration, len(train) // 4), seed=seed)
