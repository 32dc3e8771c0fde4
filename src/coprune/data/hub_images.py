"""Images of a 🤗 data set, decoded when they are asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from coprune.data.imagefolder import FolderSource

IMAGES = ("image", "img", "pixel_values")
"""Names of the column, the first that a data set has."""


@dataclass(frozen=True)
class HubImages(FolderSource):
    """Images in a column; ``files`` are the numbers of its rows.

    Attributes:
        rows: the data set.
        column: of the images.
    """

    rows: Any = None
    column: str = IMAGES[0]

    def fingerprint(self) -> str:
        """A digest of the library's own one, and of the rows and labels that were taken."""
        labels = None if self.labels is None else self.labels.tolist()
        said = str((self.size, self.names, self.rows._fingerprint, self.files, labels))
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def opened(self, number: int) -> Image:
        """See :class:`~coprune.data.imagefolder.FolderSource`."""
        image: Image = self.rows[int(self.files[number])][self.column]
        return image.convert("RGB")


def images_of(part: Any, column: str, label: str | None) -> HubImages:
    """All images of a part of a data set, with class numbers where there are such."""
    labels = None if label is None else torch.tensor(part[label], dtype=torch.int64)
    names = tuple(getattr(part.features.get(label), "names", None) or ())
    return HubImages(Path(), tuple(map(str, range(len(part)))), labels, names, rows=part, column=column)
