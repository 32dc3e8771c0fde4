"""Images from one NumPy archive: ``x_train [N, C, H, W]``, ``y_train [N]``, ``x_test``, ``y_test``.

``x_val`` and ``y_val``, where there are such, are for validation. What a network learns that is no classifier
is any ``y [N, …]``: numbers, masks, images. No part needs a ``y`` then, and without ``x_test`` a fifth of the
training part is held out.

Signals ``[N, C, L]``, volumes ``[N, C, T, H, W]`` and plain features ``[N, C]`` likewise.

uint8 images are scaled to 0…1, float images are taken as they are. An archive may state how its
images are normalised, as arrays ``mean`` and ``std`` (one value a channel).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coprune.data.arrays import ArraySource, Augmentation, Normalisation
from coprune.data.collect import MOST_CLASSES
from coprune.data.names import place_of
from coprune.data.subsample import held_out
from coprune.errors import UserError, first_line
from coprune.files import check_regular

_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)

UNCHANGED = Augmentation()

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MORE = ("x_val", "y_val")
_PARTS = {"train": "train", "val": "dev", "test": "test"}
_MEASURED = ("regression", "multilabel", "reconstruction")
"""Tasks whose targets are float32, whatever an archive holds."""


def _images(array: np.ndarray, *, where: str) -> Tensor:
    if not 2 <= array.ndim <= 5:
        raise UserError(f"{where}: shape {list(array.shape)}, but images are [N, C, H, W]")
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # what does not fit becomes Inf, which is refused later
            return torch.from_numpy(array.astype(np.float32))
    raise UserError(f"{where}: dtype {array.dtype}; images are uint8 or float32")


def _labels(array: np.ndarray, *, where: str) -> Tensor:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(f"{where}: {array.dtype} {list(array.shape)}; labels are integers [N]")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        array = np.minimum(array, MOST_CLASSES)  # beyond int64 a label would become a negative one
    return torch.from_numpy(array.astype(np.int64))


def _targets(array: np.ndarray, *, measured: bool, where: str) -> Tensor:
    """Targets ``[N, …]``: whole ones int64, others float32."""
    if array.ndim < 1 or array.dtype.kind not in "iufb":
        raise UserError(f"{where}: {array.dtype} {list(array.shape)}; targets are numbers [N, …]")
    kind = np.float32 if measured or array.dtype.kind == "f" else np.int64
    return torch.from_numpy(array.astype(kind))


def _normalisation(arrays: Mapping[str, np.ndarray], *, name: str) -> Normalisation | None:
    stated = {key: arrays[key] for key in ("mean", "std") if key in arrays}
    if not stated:
        return None
    if len(stated) == 1:
        lacking = "std" if "mean" in stated else "mean"
        raise UserError(f"{name}: states mean or std but not both; add '{lacking}'")
    channels = arrays["x_train"].shape[1] if arrays["x_train"].ndim > 1 else 0
    values = []
    for key, array in stated.items():
        if array.dtype.kind not in "iuf":
            raise UserError(f"{name}, {key}: {array.dtype}; needs a number for each channel")
        value, above = np.atleast_1d(array).astype(np.float64), ", above 0" if key == "std" else ""
        if value.shape != (channels,) or not np.isfinite(value).all() or (above and value.min() <= 0):
            what = f"one finite value for each of {channels} channels{above}"
            raise UserError(f"{name}, {key}: {value.tolist()}; needs {what}")
        values.append(tuple(value.tolist()))
    return Normalisation(*values)


def _arrays(path: Path, *, name: str) -> dict[str, np.ndarray]:
    """All arrays of an archive."""
    check_regular(path, what="file")
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {key: loaded[key] for key in getattr(loaded, "files", ())}
    except _UNREADABLE as cause:
        said = first_line(cause)
        way = "save numbers, not Python objects" if "Object arrays" in said else "write it again"
        raise UserError(f"{name}: not a readable .npz archive ({said}); {way}") from cause
    if isinstance(loaded, np.ndarray):
        raise UserError(f"{name}: a single array, not an archive; write it with numpy.savez")
    if foreign := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise UserError(f"{name}: {foreign[0]} is no NumPy array; write it with numpy.savez")
    return arrays


def load(argument: str | None, *, task: str | None = "classification") -> tuple[ArraySource, ...]:
    """Images of a user's own.

    Args:
        argument: the file.
        task: labels are class numbers for ``classification``, and where it is None if they are integers
            ``[N]``; else they are targets of any kind, and need not be there.

    Raises:
        UserError: see :func:`read`.
    """
    path = place_of(argument, "npz", form="FILE")
    return read(path, name=f"npz:{argument}", task=task)


def read(
    path: Path,
    *,
    name: str,
    augmentation: Augmentation = UNCHANGED,
    task: str | None = "classification",
) -> tuple[ArraySource, ...]:
    """Train, held-out and perhaps validation images of an archive.

    Args:
        path: the ``.npz`` file.
        name: how messages name the data.
        augmentation: for training on it; none by default, since only the user knows whether a
            mirrored sample keeps its label.
        task: see :func:`load`.

    Raises:
        UserError: no such file, not an archive, truncated, an array missing or of the wrong kind.
    """
    arrays = _arrays(path, name=name)
    given = [array for key, array in arrays.items() if key.startswith("y_")]
    whole = bool(given) and all(y.ndim == 1 and y.dtype.kind not in "fb" for y in given)
    classes = task == "classification" or (task is None and whole)
    due = (*_KEYS, *(_MORE if any(key in arrays for key in _MORE) else ())) if classes else _KEYS[:1]
    if missing := ", ".join(key for key in due if key not in arrays):
        found = ", ".join(arrays) or "nothing"
        needs = ", ".join(_KEYS if classes else due)
        raise UserError(f"{name}: {missing} missing; needs {needs} (found: {found})")
    normalisation, parts = _normalisation(arrays, name=name), {}
    for end, part in _PARTS.items():
        if (x := f"x_{end}") in arrays:
            y, where = arrays.get(f"y_{end}"), f"{name}, y_{end}"
            parts[part] = ArraySource(
                _images(arrays[x], where=f"{name}, {x}"),
                _labels(y, where=where) if classes and y is not None else None,
                normalisation,
                augmentation,
                None if classes or y is None else _targets(y, measured=task in _MEASURED, where=where),
            )
    return held_out(parts)
