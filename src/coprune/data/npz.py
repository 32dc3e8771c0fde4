"""Images from one NumPy archive: ``x_train [N, C, H, W]``, ``y_train [N]``, ``x_test``, ``y_test``.

``x_val`` and ``y_val``, where there are such, are for validation.

Signals ``[N, C, L]``, volumes ``[N, C, T, H, W]`` and plain features ``[N, C]`` likewise.

uint8 images are scaled to 0…1, float images are taken as they are. An archive may state how its
images are normalised, as arrays ``mean`` and ``std`` (one value a channel).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coprune.data.batch import MOST_CLASSES
from coprune.data.source import ArraySource, Augmentation, Normalisation
from coprune.errors import UserError
from coprune.files import check_regular

_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MORE = ("x_val", "y_val")


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


def _normalisation(arrays: dict[str, np.ndarray], *, name: str) -> Normalisation | None:
    if "mean" not in arrays and "std" not in arrays:
        return None
    channels = arrays["x_train"].shape[1] if arrays["x_train"].ndim > 1 else 0
    values = []
    for key in ("mean", "std"):
        if key not in arrays:
            raise UserError(f"{name}: states mean or std but not both; add '{key}'")
        if not np.issubdtype(arrays[key].dtype, np.number) or np.iscomplexobj(arrays[key]):
            raise UserError(f"{name}, {key}: {arrays[key].dtype}; needs a number for each channel")
        value = np.atleast_1d(arrays[key]).astype(np.float64)
        if value.shape != (channels,) or not np.isfinite(value).all() or (key == "std" and value.min() <= 0):
            raise UserError(
                f"{name}, {key}: {value.tolist()}; needs one finite value for each of {channels} channels"
                + (", above 0" if key == "std" else "")
            )
        values.append(tuple(value.tolist()))
    return Normalisation(values[0], values[1])


def load(path: Path, *, name: str, augmentation: Augmentation | None = None) -> tuple[ArraySource, ...]:
    """Read train, held-out and perhaps validation images of an archive.

    Args:
        path: the ``.npz`` file.
        name: how messages name the data.
        augmentation: for training on it; none by default, since only the user knows whether a
            mirrored sample keeps its label.

    Raises:
        UserError: no such file, not an archive, truncated, an array missing or of the wrong kind.
    """
    if not path.exists():
        raise UserError(f"{name}: no such file: {path}")
    check_regular(path, what="archive")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise UserError(f"{name}: a single array, not an archive; write it with numpy.savez")
        with loaded as archive:
            more = any(key in archive.files for key in _MORE)
            missing = [key for key in (*_KEYS, *(_MORE if more else ())) if key not in archive.files]
            if missing:
                raise UserError(
                    f"{name}: {', '.join(missing)} missing; needs {', '.join(_KEYS)}"
                    f" (found: {', '.join(archive.files) or 'nothing'})"
                )
            arrays = {key: archive[key] for key in archive.files}
            if foreign := [key for key, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise UserError(f"{name}: {foreign[0]} is no NumPy array; write it with numpy.savez")
    except UserError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as cause:
        said = next(iter(str(cause).splitlines()), type(cause).__name__)
        way = "save numbers, not Python objects" if "Object arrays" in said else "write it again"
        raise UserError(f"{name}: not a readable .npz archive ({said}); {way}") from cause
    normalisation = _normalisation(arrays, name=name)
    parts = [
        ArraySource(
            _images(arrays[f"x_{part}"], where=f"{name}, x_{part}"),
            _labels(arrays[f"y_{part}"], where=f"{name}, y_{part}"),
            normalisation,
            augmentation or Augmentation(),
        )
        for part in ("train", "test", *(["val"] if more else []))
    ]
    return tuple(parts)
