"""A user's own loaders behind ``python:package.module:loaders``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from coprune.data.dataset import DataSet
from coprune.data.from_loaders import from_loaders
from coprune.data.loader import read_as
from coprune.data.reads import Reads
from coprune.errors import UserError, kind_of, shown
from coprune.user_code import within
from coprune.user_factory import user_code, user_factory

_NAMES = {
    "train": "train", "calibration": "calibration", "validation": "validation", "val": "validation",
    "eval": "heldout", "heldout": "heldout", "test": "heldout",
}  # fmt: skip


def user_loaders(name: str, *, calibration: int, seed: int, task: str | None, reads: Reads | None) -> DataSet:
    """The data set of a function's loaders.

    Args:
        name: ``python:package.module:function``. The function takes nothing and returns training and held-out
            loaders, and perhaps one for validation; a dict of them by name (``train``, ``eval``,
            ``validation``, ``calibration``); or a single one, for calibration.
        calibration: samples to take of the training loader.
        seed: of what is drawn while loaders are made and read.
        task: see :func:`coprune.data.load_data`.
        reads: what of a batch are inputs, where the model is known.

    Raises:
        UserError: no such function, what it raises, or what are no loaders.
    """
    make = user_factory(name, "data", makes="loaders")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with user_code(name, "data"):
            found = make()
        with within(name):
            given = _named(found)
            first = given.get("train", given.get("calibration"))
            how = read_as((first,), reads or Reads(), task)
            return from_loaders(**given, calibration_samples=calibration, reads=how)


def _named(found: Any) -> dict[str, Any]:
    """Loaders by the names of the arguments of :func:`coprune.data.from_loaders.from_loaders`."""
    if isinstance(found, Mapping):
        if unknown := sorted(set(map(str, found)) - _NAMES.keys()):
            raise UserError(f"a loader '{shown(unknown[0])}'; names are train, eval, validation, calibration")
        return {_NAMES[name]: loader for name, loader in found.items()}
    if not isinstance(found, tuple):
        return {"calibration": found}
    if len(found) not in (2, 3):
        raise UserError(f"{kind_of(found)}; return (train, eval), (train, eval, validation), or a dict")
    return dict(zip(("train", "heldout", "validation"), found, strict=False))
