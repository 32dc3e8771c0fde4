"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747): 70,000 images, 28×28, 10 classes.

Read from the four IDX files, gzipped or not: Debian's package ``dataset-fashion-mnist`` puts them in
``/usr/share/datasets/fashion-mnist``; elsewhere torchvision can download them. Its own reader takes no gzip,
and is not needed by those who have the files.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from coprune.data import npz
from coprune.data.arrays import ArraySource, Augmentation, Normalisation
from coprune.data.names import place_of
from coprune.data.packed import DOWNLOADS, first_file, read_unpacked
from coprune.errors import UserError, first_line
from coprune.lazy import required

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")

# Mean and standard deviation of the 60,000 training images, pixels scaled to 0…1.
NORMALISATION = Normalisation(mean=(0.2860,), std=(0.3530,))
AUGMENTATION = Augmentation(flip=True, shift=2)

SAMPLE_FILE = Path(__file__).parent / "fashion-mnist-sample.npz"
"""8,500 training and 2,000 held-out images, balanced, drawn from Fashion-MNIST by
``benchmarks/make_sample.py``."""

_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
"""How the names of the files end, behind ``train-`` and ``t10k-``."""


def read_idx(path: Path) -> Tensor:
    """Read one IDX file (http://yann.lecun.com/exdb/mnist, "file formats").

    Args:
        path: a ``.gz`` or plain file with unsigned bytes.

    Returns:
        uint8 tensor with the shape that the header states.

    Raises:
        UserError: the file is truncated, damaged or not an IDX file of bytes.
    """
    raw = read_unpacked(path, what="IDX file")
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise UserError(f"{path}: not an IDX file of unsigned bytes; fetch the file again")
    axes = raw[3]
    header = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", raw[4:header]) if len(raw) >= header else ()
    due = header + math.prod(shape)
    if not shape or len(raw) != due:
        raise UserError(f"{path}: {len(raw)} bytes where {due} are due; fetch it again")
    return torch.frombuffer(bytearray(raw[header:]), dtype=torch.uint8).view(shape)


def _find(root: Path, stem: str) -> Path | None:
    return first_file((root, root / "FashionMNIST" / "raw", root / "raw"), (stem,))


def _read(folder: Path, stem: str) -> Tensor:
    path = _find(folder, stem)
    if path is None:
        raise UserError(f"fashion-mnist:{folder}: {stem}[.gz] is missing; give another ROOT")
    return read_idx(path)


def _download() -> Path:
    """The folder into which torchvision downloads the files; it would fetch none that are whole."""
    ways = "install Debian's dataset-fashion-mnist or give the folder as fashion-mnist:ROOT"
    lacking = f"Fashion-MNIST is not here: {ways}; or to download it"
    library = required("torchvision.datasets", lacking, extra="vision")
    try:
        library.FashionMNIST(str(DOWNLOADS), download=True)
    except (OSError, RuntimeError) as cause:
        raise UserError(f"Fashion-MNIST could not be downloaded ({first_line(cause)}); {ways}") from cause
    return DOWNLOADS


def load(root: str | None) -> tuple[ArraySource, ...]:
    """All training (60,000) and all test images (10,000).

    Args:
        root: a folder with the IDX files; None looks in Debian's folder, then in the download
            folder, then downloads.

    Raises:
        UserError: the folder lacks a file, or nothing was found and nothing could be downloaded.
    """
    if root:
        folder = place_of(root, "fashion-mnist")
    else:
        known = (p for p in (DEBIAN_ROOT, DOWNLOADS) if _find(p, f"train-{_IMAGES}"))
        folder = next(known, None) or _download()
    sources = []
    for part in ("train", "t10k"):
        images, labels = _read(folder, f"{part}-{_IMAGES}"), _read(folder, f"{part}-{_LABELS}")
        sources.append(ArraySource(images.unsqueeze(1), labels.long(), NORMALISATION, AUGMENTATION))
    return tuple(sources)


def load_sample(argument: str | None) -> tuple[ArraySource, ...]:
    """The sample that is part of the package."""
    if argument:
        raise UserError("fashion-mnist-sample takes no argument; it is part of the package")
    return npz.read(SAMPLE_FILE, name="fashion-mnist-sample", augmentation=AUGMENTATION)
