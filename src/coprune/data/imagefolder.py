"""Images in the layout of ImageNet: ``ROOT/train/CLASS/*.jpg`` and ``ROOT/val/CLASS/*.jpg``.

Where ``ROOT/test`` has the folders of the classes too, it is held out and ``val`` is for validation.

The usual transforms of ImageNet (He et al. 2015, arXiv 1512.03385, section 3.4; Szegedy et al. 2015, arXiv
1409.4842): for looking, the shorter side to 256 and the 224 pixels of the middle; for training, a random
part of the image, mirrored or not. Files are decoded when they are asked for, by several processes where
there are many; the data set is never held in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from coprune.data.arrays import Normalisation
from coprune.data.dataset import listed
from coprune.data.source import MemorySource, Part, digest
from coprune.distributed.world import world
from coprune.errors import UserError, first_line
from coprune.lazy import required
from coprune.tracing.forward import part_of

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE, MOST = 224, 8192
"""Pixels a side of an input, unless another size is asked for, and at most."""

NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

_MANY = 512
"""Images of a pass from which on it pays to start processes."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, ImportError)

_SIZE = re.compile(r"(.+)@(\d+)")


@cache
def _transform(size: int, *, training: bool) -> Callable[[Any], Tensor]:
    """A PIL image → ``[3, size, size]`` float32, normalised."""
    from torchvision.transforms import v2

    drawn = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    seen = [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
    scaled = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    normalised = v2.Normalize(list(NORMALISATION.mean), list(NORMALISATION.std))
    return v2.Compose([*(drawn if training else seen), *scaled, normalised])


@dataclass(frozen=True)
class FolderSource(MemorySource):
    """Images on disk.

    Attributes:
        root: the folder of the part.
        files: ``N`` paths relative to it.
        labels: class numbers ``[N]`` int64; None without.
        names: what the classes are called.
        size: pixels a side of an input.
    """

    root: Path
    files: tuple[str, ...]
    labels: Tensor | None = None
    names: tuple[str, ...] = ()
    size: int = SIZE

    def __len__(self) -> int:
        return len(self.files)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(3, size, size)``."""
        return (3, self.size, self.size)

    def take(self, index: Tensor) -> FolderSource:
        """See :class:`~coprune.data.source.MemorySource`."""
        files = tuple(self.files[i] for i in index.tolist())
        return replace(self, files=files, labels=part_of(self.labels, index))

    def fingerprint(self) -> str:
        """A digest of names, sizes and classes of the files, and of the input's size.

        Their content is not read: that would take longer than many a run.
        """
        labels = [""] * len(self) if self.labels is None else self.labels.tolist()
        files = zip(self.files, labels, strict=True)
        rows = (f"{file}\0{(self.root / file).stat().st_size}\0{label}\n" for file, label in files)
        return digest(str((self.size, self.names)), *rows)

    def incompatibility(self, heldout: FolderSource) -> str | None:
        """See :class:`~coprune.data.source.MemorySource`."""
        for one, two, here, there in (("train", "val", self, heldout), ("val", "train", heldout, self)):
            if lacking := sorted(set(here.names) - set(there.names)):
                return f"classes {listed(lacking, most=3)} of {one} are not in {two}; both need the same"
        return None

    def opened(self, number: int) -> Image:
        """The image of a sample, RGB."""
        from torchvision.datasets.folder import pil_loader

        return pil_loader(str(self.root / self.files[number]))

    def __getitem__(self, at: tuple[int, int | None]) -> Tensor | str:
        """A decoded image ``[3, size, size]``; where it cannot be decoded, what to tell the user.

        An error raised in another process would come back as a page of text, so it is handed over instead.

        Args:
            at: number of the sample, and the seed of its augmentation, if any.
        """
        from PIL import Image

        number, seed = at
        try:
            image = self.opened(number)
        # An ImportError: ultralytics, once imported, makes PIL look for a plugin that may be missing.
        except (*_UNREADABLE, Image.DecompressionBombError) as cause:
            path = self.root / self.files[number]
            return f"{path}: not a readable image ({first_line(cause)}); replace or remove it"
        if seed is None:
            return _transform(self.size, training=False)(image)
        # The transforms draw from the global generator: by the image, not by who decodes it.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return _transform(self.size, training=True)(image)

    def inputs(self, parts: Sequence[Part], draw: Callable[[int], int] | None = None) -> Iterator[Tensor]:
        """See :class:`~coprune.data.source.MemorySource`; only the own samples are decoded.

        Raises:
            UserError: a file that is no image.
        """
        batches: list[list[tuple[int, int | None]]] = []
        for part in parts:
            # One seed an image, by its place in the epoch: the same wherever an interrupted training goes on.
            places = range(part.start, part.start + len(part.index))
            seeds = [draw and draw(place) for place in places[part.own]]
            batches.append([*zip(part.index[part.own].tolist(), seeds, strict=True)])
        workers = min(8, max(1, (os.cpu_count() or 1) // world()))
        loader: DataLoader[Any] = DataLoader(
            self,  # type: ignore[arg-type]  # a map of samples
            batch_sampler=batches,
            num_workers=workers if sum(map(len, batches)) >= _MANY else 0,
            collate_fn=_collate,
            # Its own, so that a pass draws nothing from the global generator.
            generator=torch.Generator().manual_seed(0),
        )
        for found in loader:
            if isinstance(found, str):
                raise UserError(found)
            yield found


def _collate(items: list[Any]) -> Tensor | str:
    return next((item for item in items if isinstance(item, str)), None) or torch.stack(items)


def _part(root: Path, part: str, *, name: str, size: int) -> FolderSource:
    folder = root / part
    if not folder.is_dir():
        raise UserError(f"{name}: {part}/ is missing; images lie in ROOT/train/CLASS/ and ROOT/val/CLASS/")
    library = required("torchvision.datasets", "imagefolder: needs torchvision", extra="vision")
    try:
        found = library.ImageFolder(str(folder))
    except (OSError, ValueError) as cause:
        # A class without images, or no class at all.
        raise UserError(f"{name}: {part}/: {cause}; add images, or drop the class") from cause
    labels = torch.tensor(found.targets, dtype=torch.int64)
    files = tuple(os.path.relpath(path, folder) for path, _ in found.samples)
    return FolderSource(folder, files, labels, tuple(found.classes), size)


def sized(argument: str | None, *, kind: str) -> tuple[Path, int]:
    """``ROOT`` or ``ROOT@SIZE`` as a folder and the pixels a side of an input.

    Raises:
        UserError: no such folder, a size below 1.
    """
    if not argument:
        raise UserError(f"{kind}: names no folder; write {kind}:ROOT or {kind}:ROOT@SIZE")
    root, size = Path(argument).expanduser(), SIZE
    found = _SIZE.fullmatch(argument)
    if found and not root.is_dir():
        root, size = Path(found[1]).expanduser(), int(found[2])
    if not root.is_dir():
        raise UserError(f"{kind}:{argument}: no such folder")
    if not 1 <= size <= MOST:
        raise UserError(f"{kind}:{argument}: a size of {size} pixels; give 1 to {MOST}")
    return root, size


def load(argument: str | None) -> tuple[FolderSource, ...]:
    """Training, held-out and perhaps validation images.

    Args:
        argument: ``ROOT``, or ``ROOT@SIZE`` for inputs of another size than 224.

    Raises:
        UserError: torchvision is missing, no such folder, a part or a class without images, a size below 1.
    """
    root, size = sized(argument, kind="imagefolder")
    name = f"imagefolder:{root}"
    train, val = (_part(root, part, name=name, size=size) for part in ("train", "val"))
    # ImageNet's own test images have no classes.
    if all((root / "test" / one).is_dir() for one in train.names):
        return train, _part(root, "test", name=name, size=size), val
    return train, val
