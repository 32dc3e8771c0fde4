"""Images in the layout of ImageNet: ``ROOT/train/CLASS/*.jpg`` and ``ROOT/val/CLASS/*.jpg``.

Where ``ROOT/test`` has the folders of the classes too, it is held out and ``val`` is for validation.

The usual transforms of ImageNet (He et al. 2015, arXiv 1512.03385, section 3.4; Szegedy et al. 2015, arXiv
1409.4842): for looking, the shorter side to 256 and the 224 pixels of the middle; for training, a random
part of the image, mirrored or not. Files are decoded when they are asked for, by several processes where
there are many; the data set is never held in memory.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coprune.data.source import Batch, Normalisation, batch_seed, drawn_order, steps_of
from coprune.distributed.world import own_part, world
from coprune.errors import UserError

SIZE, MOST = 224, 8192
"""Pixels a side of an input, unless another size is asked for, and at most."""

NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

_MANY = 512
"""Images of a pass from which on it pays to start processes."""

_SIZE = re.compile(r"(.+)@(\d+)")


def _vision() -> Any:
    try:
        import torchvision
    except ImportError as cause:
        raise UserError("imagefolder: needs torchvision: pip install coprune[vision]") from cause
    return torchvision


def _transform(size: int, *, training: bool) -> Callable[[Any], Tensor]:
    """A PIL image → ``[3, size, size]`` float32, normalised."""
    from torchvision.transforms import v2

    seen = (
        [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        if training
        else [v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)]
    )
    return v2.Compose(
        [
            *seen,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(NORMALISATION.mean), list(NORMALISATION.std)),
        ]
    )


class _Images(Dataset[Tensor | str]):
    """Decoded images; where one cannot be decoded, what to tell the user.

    An error raised in another process would come back as a page of text, so it is handed over instead.
    """

    def __init__(self, files: Sequence[Path], size: int, seeds: Sequence[int] | None) -> None:
        self.files, self.seeds = files, seeds
        self.transform = _transform(size, training=seeds is not None)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, at: int) -> Tensor | str:
        from PIL import Image
        from torchvision.datasets.folder import pil_loader

        path = self.files[at]
        try:
            image = pil_loader(str(path))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as cause:
            said = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
            return f"{path}: not a readable image ({said}); replace or remove it"
        if self.seeds is None:
            return self.transform(image)
        # The transforms draw from the global generator: by the image, not by who decodes it.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seeds[at])
            return self.transform(image)


def _collate(items: list[Tensor | str]) -> Tensor | str:
    tensors = [item for item in items if isinstance(item, Tensor)]
    if len(tensors) == len(items):
        return torch.stack(tensors)
    return next(item for item in items if isinstance(item, str))


@dataclass(frozen=True)
class FolderSource:
    """Images on disk.

    Attributes:
        root: the folder of the part.
        files: ``N`` paths relative to it.
        labels: ``[N]`` int64.
        names: what the classes are called.
        size: pixels a side of an input.
    """

    root: Path
    files: tuple[str, ...]
    labels: Tensor
    names: tuple[str, ...]
    size: int = SIZE

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(3, size, size)``."""
        return (3, self.size, self.size)

    def take(self, index: Tensor) -> FolderSource:
        """The samples with the given indices ``[M]``, as a source of their own."""
        files = tuple(self.files[i] for i in index.tolist())
        return FolderSource(self.root, files, self.labels[index], self.names, self.size)

    def fingerprint(self) -> str:
        """A digest of names, sizes and classes of the files, and of the input's size.

        Their content is not read: that would take longer than many a run.
        """
        digest = hashlib.sha256(str((self.size, self.names)).encode())
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            digest.update(f"{file}\0{(self.root / file).stat().st_size}\0{label}\n".encode())
        return digest.hexdigest()[:16]

    def defect(self) -> str | None:
        """See :class:`coprune.data.source.MemorySource`."""
        return None

    def unlike(self, heldout: FolderSource) -> str | None:
        """See :class:`coprune.data.source.MemorySource`."""
        for here, there, one, two in (
            (self.names, heldout.names, "train", "val"),
            (heldout.names, self.names, "val", "train"),
        ):
            lacking = sorted(set(here) - set(there))
            if lacking:
                more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
                return f"classes {', '.join(lacking[:3])}{more} of {one} are not in {two}; both need the same"
        return None

    def _inputs(self, parts: Sequence[Tensor], seeds: Sequence[int] | None = None) -> Iterator[Tensor]:
        """The images of every part of indices, in order.

        Raises:
            UserError: a file that is no image.
        """
        order = [i for part in parts for i in part.tolist()]
        places = torch.arange(len(order)).split([len(part) for part in parts]) if parts else ()
        loader = DataLoader(
            _Images([self.root / self.files[i] for i in order], self.size, seeds),
            batch_sampler=[place.tolist() for place in places],
            num_workers=min(8, max(1, (os.cpu_count() or 1) // world())) if len(order) >= _MANY else 0,
            collate_fn=_collate,
            # Its own, so that a pass draws nothing from the global generator.
            generator=torch.Generator().manual_seed(0),
        )
        for found in loader:
            if isinstance(found, str):
                raise UserError(found)
            yield found

    def batches(self, batch_size: int) -> Iterator[Batch]:
        parts = torch.arange(len(self)).split(batch_size)
        for part, images in zip(parts, self._inputs(parts), strict=True):
            yield images, self.labels[part]

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        return steps_of(len(self), batch_size, fraction)

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, fraction: float = 1.0, skip: int = 0
    ) -> Iterator[Batch]:
        order, _ = drawn_order(len(self), seed=seed, epoch=epoch, fraction=fraction)
        parts = order.split(batch_size)[skip:]
        # One seed an image, by its place in the epoch: the same wherever an interrupted training goes on.
        seeds = torch.arange(skip * batch_size, len(order)).split(batch_size) if parts else ()
        # Only this process's images are decoded.
        mine = [part[own_part(len(part))] for part in parts]
        drawn = [batch_seed(seed, epoch, i) for at in seeds for i in at[own_part(len(at))].tolist()]
        for part, images in zip(parts, self._inputs(mine, drawn), strict=True):
            yield images, self.labels[part]


def _part(root: Path, part: str, *, name: str, size: int) -> FolderSource:
    folder = root / part
    if not folder.is_dir():
        raise UserError(f"{name}: {part}/ is missing; images lie in ROOT/train/CLASS/ and ROOT/val/CLASS/")
    vision = _vision()
    try:
        found = vision.datasets.ImageFolder(str(folder), allow_empty=True)
    except (OSError, ValueError) as cause:
        raise UserError(f"{name}: {folder} has no folders of classes") from cause
    labels = torch.tensor(found.targets, dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(found.classes))
    empty = [found.classes[i] for i in torch.nonzero(counts == 0).flatten().tolist()]
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise UserError(
            f"{name}: {part}/ has no image of class {', '.join(empty[:3])}{more}; add some, or drop the class"
        )
    files = tuple(os.path.relpath(path, folder) for path, _ in found.samples)
    return FolderSource(folder, files, labels, tuple(found.classes), size)


def load(argument: str | None) -> tuple[FolderSource, ...]:
    """Training, held-out and perhaps validation images.

    Args:
        argument: ``ROOT``, or ``ROOT@SIZE`` for inputs of another size than 224.

    Raises:
        UserError: torchvision is missing, no such folder, a part or a class without images, a size below 1.
    """
    if not argument:
        raise UserError("imagefolder: names no folder; write imagefolder:ROOT or imagefolder:ROOT@SIZE")
    root, size = Path(argument).expanduser(), SIZE
    sized = _SIZE.fullmatch(argument)
    if sized and not root.is_dir():
        root, size = Path(sized[1]).expanduser(), int(sized[2])
    if not root.is_dir():
        raise UserError(f"imagefolder:{argument}: no such folder")
    if not 1 <= size <= MOST:
        raise UserError(f"imagefolder:{argument}: a size of {size} pixels; give 1 to {MOST}")
    name = f"imagefolder:{root}"
    train, val = (_part(root, part, name=name, size=size) for part in ("train", "val"))
    # ImageNet's own test images have no classes.
    if all((root / "test" / one).is_dir() for one in train.names):
        return train, _part(root, "test", name=name, size=size), val
    return train, val
