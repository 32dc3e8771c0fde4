"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747): 70,000 images, 28×28, 10 classes.

Read from the four IDX files, gzipped or not: Debian's package ``dataset-fashion-mnist`` puts them in
``/usr/share/datasets/fashion-mnist``; elsewhere torchvision can download them.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coprune.data.source import ArraySource, Augmentation, Normalisation
from coprune.errors import UserError
from coprune.files import check_regular

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_ROOT = Path("~/.cache/coprune").expanduser()

# Mean and standard deviation of the 60,000 training images, pixels scaled to 0…1.
NORMALISATION = Normalisation(mean=(0.2860,), std=(0.3530,))
AUGMENTATION = Augmentation(flip=True, shift=2)

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "heldout": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: Path) -> Tensor:
    """Read one IDX file (http://yann.lecun.com/exdb/mnist, "file formats").

    Args:
        path: a ``.gz`` or plain file with unsigned bytes.

    Returns:
        uint8 tensor with the shape that the header states.

    Raises:
        UserError: the file is truncated, damaged or not an IDX file of bytes.
    """
    check_regular(path, what="IDX file")
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as cause:
        raise UserError(f"{path}: cannot be read ({cause}); fetch the file again") from cause
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise UserError(f"{path}: not an IDX file of unsigned bytes; fetch the file again")
    dims = raw[3]
    header = 4 + 4 * dims
    shape = struct.unpack(f">{dims}I", raw[4:header]) if len(raw) >= header else ()
    wanted = int(np.prod(shape, dtype=np.int64))
    if not shape or len(raw) - header != wanted:
        raise UserError(
            f"{path}: truncated, {len(raw)} bytes where {header + wanted} are due; fetch it again"
        )
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy())


def _find(root: Path, stem: str) -> Path | None:
    places = (root, root / "FashionMNIST" / "raw", root / "raw")
    for place in places:
        for name in (stem, stem + ".gz"):
            if (place / name).is_file():
                return place / name
    return None


def _download() -> Path:
    try:
        from torchvision.datasets import FashionMNIST
    except ImportError as cause:
        raise UserError(
            "Fashion-MNIST is not here: install Debian's dataset-fashion-mnist, give its folder as "
            "fashion-mnist:ROOT, or `pip install coprune[vision]` to download it"
        ) from cause
    try:
        FashionMNIST(str(DOWNLOAD_ROOT), download=True)
    except (OSError, RuntimeError) as cause:
        raise UserError(
            f"Fashion-MNIST could not be downloaded ({str(cause).splitlines()[0]}); install Debian's "
            "dataset-fashion-mnist or give the folder as fashion-mnist:ROOT"
        ) from cause
    return DOWNLOAD_ROOT


def load(root: str | None) -> tuple[ArraySource, ArraySource]:
    """All training and all test images.

    Args:
        root: a folder with the IDX files; None looks in Debian's folder, then in the download
            folder, then downloads.

    Returns:
        Train (60,000) and held-out (10,000) sources.

    Raises:
        UserError: the folder lacks a file, or nothing was found and nothing could be downloaded.
    """
    if root:
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise UserError(f"fashion-mnist:{root}: no such folder")
    else:
        known = (p for p in (DEBIAN_ROOT, DOWNLOAD_ROOT) if _find(p, _FILES["train"][0]))
        folder = next(known, None) or _download()
    sources = []
    for stems in _FILES.values():
        paths = [_find(folder, stem) for stem in stems]
        for stem, path in zip(stems, paths, strict=True):
            if path is None:
                raise UserError(f"fashion-mnist:{folder}: {stem}[.gz] is missing; give another ROOT")
        images, labels = (read_idx(path) for path in paths if path is not None)
        sources.append(ArraySource(images.unsqueeze(1), labels.long(), NORMALISATION, AUGMENTATION))
    return sources[0], sources[1]
