"""Small data sets of images in published layouts: CIFAR's binary version, ImageNet's folders."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from pathlib import Path

import numpy as np

from coprune.data import cifar


def shrink(monkeypatch, *, train: int = 100, heldout: int = 100) -> None:
    """Expect so many records a file instead of tens of thousands."""
    for name, archive in list(cifar.ARCHIVES.items()):
        small = dataclasses.replace(
            archive,
            train=dict.fromkeys(archive.train, train),
            heldout=dict.fromkeys(archive.heldout, heldout),
        )
        monkeypatch.setitem(cifar.ARCHIVES, name, small)


def write_cifar(root: Path, name: str) -> Path:
    """The unpacked binary files, as many records as are expected; returns their folder.

    The class is told by how bright the image is, so that a network can learn it.
    """
    archive = cifar.ARCHIVES[name]
    folder = root / archive.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for file, count in {**archive.train, **archive.heldout}.items():
        labels = (np.arange(count) % archive.classes).astype(np.uint8)
        pixels = rng.integers(0, 20, (count, 3 * 32 * 32)) + (labels[:, None] * (220 // archive.classes))
        coarse = [labels // 5] if archive.label_bytes == 2 else []
        head = np.stack([*coarse, labels], 1)
        (folder / file).write_bytes(np.concatenate([head, pixels.astype(np.uint8)], 1).tobytes())
    return folder


def pack(monkeypatch, root: Path, name: str) -> Path:
    """Turn the folder of :func:`write_cifar` into the archive, whose digest is then expected."""
    archive = cifar.ARCHIVES[name]
    path = root / archive.file
    with tarfile.open(path, "w:gz") as packed:
        packed.add(root / archive.folder, archive.folder)
    for file in (root / archive.folder).iterdir():
        file.unlink()
    (root / archive.folder).rmdir()
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(cifar.ARCHIVES, name, dataclasses.replace(archive, md5=digest))
    return path


def write_folders(root: Path, *, classes: int = 3, train: int = 8, val: int = 4) -> Path:
    """``train/`` and ``val/`` with JPEG images of different sizes, one colour a class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for number in range(classes):
            folder = root / part / f"n{number:03}"
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(20, 60, 2)
                pixels = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
                pixels[..., number % 3] += 150
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")
    return root
