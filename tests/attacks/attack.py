"""Bad input as data: what was given, the line that it gets. The tests run it, docs/errors.md shows it.

Each module ``attacks_….py`` of this folder holds the rows of one kind of place where things go wrong, as
``ATTACKS``. A row runs in a folder of its own (see :class:`World`), and nothing may be left in it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = (
    "attacks_files",
    "attacks_folders",
    "attacks_typed",
    "attacks_loaders",
    "attacks_data",
    "attacks_figures",
    "attacks_models",
)


def nothing(world: World) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Attack:
    """One bad input.

    Attributes:
        kind: the heading that it stands under in docs/errors.md.
        given: a command line (``coprune prune …``), or a Python expression over :attr:`World.names`.
        line: what is said, whole; ``…`` stands for what varies.
        makes: prepares the folder or the names; runs inside the folder.
        shown: what the docs show instead of ``given``, where that alone would say too little.
        leaves: names of what may be new in the folder afterwards.
        notes: the run succeeds, and the line is among what it prints (standard output or error).
    """

    kind: str
    given: str
    line: str
    makes: Callable[[World], None] = nothing
    shown: str = ""
    leaves: tuple[str, ...] = ()
    notes: bool = False

    @property
    def is_command(self) -> bool:
        """Whether it is typed in a shell."""
        return self.given.startswith("coprune ")

    def matches(self, said: str) -> bool:
        """Whether this is the line, ``…`` standing for anything but a new line."""
        pattern = ".+?".join(re.escape(part) for part in self.line.split("…"))
        return re.fullmatch(pattern, said) is not None


@dataclass
class World:
    """What a row finds: the current folder and the names of its expression.

    In the folder: ``base`` (a run folder of a trained ResNet-20 of width 4), ``run`` (half of it, as
    ``coprune prune`` wrote it) and ``digits.npz`` (240 images 12×12 of 4 classes), all small.

    Attributes:
        folder: the current folder.
        names: ``coprune``, ``torch``, ``nn``, ``np``; ``net`` (the base), ``pruned`` (of ``run``),
            ``batches`` (a list of (images [16, 1, 12, 12], labels [16])), ``test`` (another such list).
    """

    folder: Path
    names: dict[str, Any]


def every_attack() -> list[Attack]:
    """All rows, in the order of the modules."""
    return [attack for module in MODULES for attack in importlib.import_module(module).ATTACKS]
