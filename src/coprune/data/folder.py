"""Photographs without labels: ``folder:DIR``, all images in it and in its folders.

``DIR/train`` and ``DIR/val`` (and ``DIR/test``) are the parts where they are there; else a fifth is held out.
They are read as those of :mod:`coprune.data.imagefolder` are.
"""

from __future__ import annotations

import os
from pathlib import Path

from coprune.data.imagefolder import FolderSource, sized
from coprune.data.subsample import held_out
from coprune.errors import UserError
from coprune.lazy import required


def _images(folder: Path, *, size: int, where: str) -> FolderSource:
    """All images of a folder, in the order of their paths."""
    library = required("torchvision.datasets.folder", "folder: needs torchvision", extra="vision")
    images = (path for path in folder.rglob("*") if library.is_image_file(path.name) and path.is_file())
    found = sorted(os.path.relpath(path, folder) for path in images)
    if not found:
        known = ", ".join(library.IMG_EXTENSIONS)
        raise UserError(f"{where}: no images in {folder}; their names end in {known}")
    return FolderSource(folder, tuple(found), size=size)


def load(argument: str | None) -> tuple[FolderSource, ...]:
    """Training, held-out and perhaps validation images.

    Args:
        argument: ``DIR``, or ``DIR@SIZE`` for inputs of another size than 224.

    Raises:
        UserError: torchvision is missing, no such folder, no images, a size below 1.
    """
    root, size = sized(argument, kind="folder")
    parts = {"train": root / "train", "dev": root / "val", "test": root / "test"}
    if not (parts["train"].is_dir() and (parts["dev"].is_dir() or parts["test"].is_dir())):
        parts = {"train": root}
    where = f"folder:{argument}"
    return held_out({p: _images(at, size=size, where=where) for p, at in parts.items() if at.is_dir()})
