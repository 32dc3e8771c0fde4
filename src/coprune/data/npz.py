"""Images from one NumPy archive: ``x_train [N, C, H, W]``, ``y_train [N]``, ``x_test``, ``y_test``.

uint8 images are scaled to 0…1, float images are taken as they are. An archive may state how its
images are normalised, as arrays ``mean`` and ``std`` (one value a channel).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coprune.data.source import ArraySource, Augmentation, Normalisation
from coprune.errors import UserError

_KEYS = ("x_train", "y_train", "x_test", "y_test")


def _images(array: np.ndarray, *, where: str) -> Tensor:
    if array.ndim != 4:
        raise UserError(f"{where}: shape {list(array.shape)}, but images are [N, C, H, W]")
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    if np.issubdtype(array.dtype, np.floating):
        return torch.from_numpy(array.astype(np.float32))
    raise UserError(f"{where}: dtype {array.dtype}; images are uint8 or float32")


def _labels(array: np.ndarray, *, where: str) -> Tensor:
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{where}: {array.dtype} {list(array.shape)}; labels are integers [N]")
    return torch.from_numpy(array.astype(np.int64))


def load(
    path: Path, *, name: str, augmentation: Augmentation | None = None
) -> tuple[ArraySource, ArraySource]:
    """Read train and held-out images of an archive.

    Args:
        path: the ``.npz`` file.
        name: how messages name the data.
        augmentation: for training on it; none by default, since only the user knows whether a
            mirrored sample keeps its label.

    Raises:
        UserError: no such file, not an archive, truncated, an array missing or of the wrong kind.
    """
    if not path.is_file():
        raise UserError(f"{name}: no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _KEYS if key not in archive.files]
            if missing:
                raise UserError(
                    f"{name}: {', '.join(missing)} missing; needs {', '.join(_KEYS)}"
                    f" (found: {', '.join(archive.files) or 'nothing'})"
                )
            arrays = {key: archive[key] for key in archive.files}
    except UserError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as cause:
        raise UserError(f"{name}: not a readable .npz archive ({cause}); write it again") from cause
    normalisation = None
    if "mean" in arrays and "std" in arrays:
        normalisation = Normalisation(
            tuple(float(v) for v in np.atleast_1d(arrays["mean"])),
            tuple(float(v) for v in np.atleast_1d(arrays["std"])),
        )
    parts = [
        ArraySource(
            _images(arrays[f"x_{part}"], where=f"{name}, x_{part}"),
            _labels(arrays[f"y_{part}"], where=f"{name}, y_{part}"),
            normalisation,
            augmentation or Augmentation(),
        )
        for part in ("train", "test")
    ]
    return parts[0], parts[1]
