"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 images, 32×32, three colours, 10 or 100 classes.

Read from the *binary* version (``cifar-10-binary.tar.gz``, ``cifar-100-binary.tar.gz``), packed or not.
The python version holds the same images as pickles. A pickle is a program: this project opens none, not
even with a restricted reader, since nothing is lost by asking for the other archive.

An archive is checked by its published MD5, an unpacked folder by the sizes of its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from coprune.data.arrays import ArraySource, Augmentation, Normalisation
from coprune.data.packed import DOWNLOADS
from coprune.errors import UserError
from coprune.files import make_folder

SITE = "https://www.cs.toronto.edu/~kriz/"

SHAPE = (3, 32, 32)

# What every paper trains these sets with: a mirrored image, moved by up to four pixels.
AUGMENTATION = Augmentation(flip=True, shift=4)


@dataclass(frozen=True)
class Archive:
    """One of the two sets as its authors give it out.

    Attributes:
        file: name of the packed archive.
        md5: its published digest.
        folder: the folder inside it.
        train: file → records, in order.
        heldout: the same of the test images.
        label_bytes: bytes before the pixels of a record; the last is the label that is used. CIFAR-100
            has the coarse label first.
        classes: number of classes.
        normalisation: mean and standard deviation of the training images, pixels scaled to 0…1.
    """

    file: str
    md5: str
    folder: str
    train: Mapping[str, int]
    heldout: Mapping[str, int]
    label_bytes: int
    classes: int
    normalisation: Normalisation

    @property
    def files(self) -> dict[str, int]:
        """File → records, of all images."""
        return {**self.train, **self.heldout}


ARCHIVES = {
    "cifar10": Archive(
        file="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        train={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
        heldout={"test_batch.bin": 10_000},
        label_bytes=1,
        classes=10,
        normalisation=Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    ),
    "cifar100": Archive(
        file="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        train={"train.bin": 50_000},
        heldout={"test.bin": 10_000},
        label_bytes=2,
        classes=100,
        normalisation=Normalisation(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    ),
}


def read_records(raw: bytes, archive: Archive, *, records: int, where: str) -> tuple[Tensor, Tensor]:
    """The records of one file (https://www.cs.toronto.edu/~kriz/cifar.html, "binary version").

    Args:
        raw: the file's content.
        archive: says what a record is.
        records: how many there must be, ``N``.
        where: how a message names the file.

    Returns:
        Images ``[N, 3, 32, 32]`` uint8 and labels ``[N]`` int64.

    Raises:
        UserError: another size, or a label that is no class.
    """
    width = archive.label_bytes + math.prod(SHAPE)
    if len(raw) != records * width:
        raise UserError(f"{where}: {len(raw):,} bytes where {records * width:,} are due; fetch it again")
    table = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(records, width)
    labels = table[:, archive.label_bytes - 1].long()
    if int(labels.max()) >= archive.classes:
        raise UserError(f"{where}: label {int(labels.max())} of {archive.classes} classes; fetch it again")
    return table[:, archive.label_bytes :].reshape(records, *SHAPE), labels


def _from_archive(path: Path, archive: Archive) -> dict[str, bytes]:
    """Files straight out of the packed archive; nothing is unpacked to disk."""
    raw = path.read_bytes()
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if digest != archive.md5:
        raise UserError(
            f"{path}: not the published {archive.file} (MD5 {digest}, due {archive.md5}); "
            "remove it and fetch it again"
        )
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as packed:
        members = {name: packed.extractfile(f"{archive.folder}/{name}") for name in archive.files}
        return {name: member.read() if member else b"" for name, member in members.items()}


def _download(root: Path, archive: Archive, *, name: str) -> None:
    """Fetch the packed archive into a folder, whole or not at all; its digest is checked when it is read."""
    there = root.exists()
    make_folder(root)
    try:
        # Writes beside and renames.
        torch.hub.download_url_to_file(SITE + archive.file, str(root / archive.file), progress=False)
    except (URLError, OSError, RuntimeError) as cause:
        if not there:
            with contextlib.suppress(OSError):
                root.rmdir()
        pickled = next(root.glob(archive.file.replace("binary.tar.gz", "*py*")), None)
        only = "it is not there"
        if pickled:
            only = f"only the pickled version ({pickled.name}) is there, and coprune opens no pickle"
        raise UserError(
            f"{name}:{root}: {only}; {archive.file} could not be downloaded ({cause}): put it into {root} "
            f"yourself, from {SITE}{archive.file}"
        ) from cause


def _files(name: str, root: str | None) -> tuple[Path, dict[str, bytes]]:
    """Where the images were found, and every file's content."""
    archive = ARCHIVES[name]
    place = Path(root).expanduser() if root else DOWNLOADS
    folders = (place, place / archive.folder)
    found = next((f for f in folders if any((f / file).is_file() for file in archive.files)), None)
    if found is None:
        found = place if place.is_file() else place / archive.file
        if not found.is_file():
            _download(place, archive, name=name)
    try:
        if found.is_file():
            return found, _from_archive(found, archive)
        return found, {file: (found / file).read_bytes() for file in archive.files}
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as cause:
        raise UserError(f"{found}: cannot be read ({cause}); fetch it again") from cause


def _load(root: str | None, *, name: str) -> tuple[ArraySource, ...]:
    """All training (50,000) and all test images (10,000).

    Args:
        root: the packed archive; a folder with it, with the unpacked files, or to download into; None:
            the download folder.
        name: of the set.

    Raises:
        UserError: nothing there and no network, only the python version, or a file that is damaged.
    """
    archive = ARCHIVES[name]
    where, files = _files(name, root)
    sources = []
    for part in (archive.train, archive.heldout):
        read = [read_records(files[f], archive, records=n, where=f"{where}, {f}") for f, n in part.items()]
        images, labels = (torch.cat(tensors) for tensors in zip(*read, strict=True))
        sources.append(ArraySource(images, labels, archive.normalisation, AUGMENTATION))
    return tuple(sources)


load_cifar10, load_cifar100 = (partial(_load, name=name) for name in ARCHIVES)
