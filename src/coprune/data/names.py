"""Which data names there are. Knows nothing of torch, so that a mistyped one is answered at once.

A name is ``kind`` or ``kind:where``, such as ``fashion-mnist`` or ``npz:digits.npz``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coprune.errors import UserError, kind_of, near_matches, setting, shown
from coprune.lazy import Registry
from coprune.user_factory import PYTHON

Loader = Callable[..., tuple[Any, ...]]
"""From what stands behind the colon to training and held-out samples, and perhaps those for validation.

One that reads differently for different tasks has an argument ``task``, see :func:`coprune.data.load_data`.
"""

LOADERS: Registry[Loader] = Registry(
    "data",
    {
        "fashion-mnist": "coprune.data.fashion_mnist:load",
        "fashion-mnist-sample": "coprune.data.fashion_mnist:load_sample",
        "cifar10": "coprune.data.cifar:load_cifar10",
        "cifar100": "coprune.data.cifar:load_cifar100",
        "folder": "coprune.data.folder:load",
        "imagefolder": "coprune.data.imagefolder:load",
        "npz": "coprune.data.npz:load",
    },
)

TEXT_LOADERS: Registry[Loader] = Registry(
    "data",
    {
        "lines": "coprune.data.lines:load",
        "tsv": "coprune.data.tsv:load",
        "sst5": "coprune.data.glue:load_sst5",
        "mnli": "coprune.data.glue:load_mnli",
        "mnli-mm": "coprune.data.glue:load_mnli_mismatched",
        "hf": "coprune.data.hub:load",
    },
)


def is_text(name: str) -> bool:
    """Whether a data name stands for texts."""
    return name.partition(":")[0] in TEXT_LOADERS


def place_of(argument: str | None, kind: str, *, form: str = "ROOT") -> Path:
    """The file or the folder that stands behind the colon of a name.

    Args:
        argument: what stands there.
        kind: the name before it.
        form: how it is written: ``ROOT``, a folder, which must be there, or ``FILE``.

    Raises:
        UserError: none is named, or no such folder.
    """
    if not argument:
        raise UserError(f"{kind}: names no {'file' if form == 'FILE' else 'folder'}; write {kind}:{form}")
    place = Path(argument).expanduser()
    if form == "ROOT" and not place.is_dir():
        raise UserError(f"{kind}:{argument}: no such folder")
    return place


def check_known(name: str, *, of_texts: bool | None = None) -> None:
    """Refuse what is no name of data, or not of the kind of data that is asked for.

    Raises:
        UserError: with near matches.
    """
    known = [*LOADERS, *TEXT_LOADERS, PYTHON.rstrip(":")]
    if not isinstance(name, str):
        raise UserError(f"{kind_of(name)} is no name of data; known: {', '.join(sorted(known))}")
    head, _, argument = name.partition(":")
    if head not in known:
        raise UserError(f"unknown data '{shown(name)}'; {near_matches(head, known)}")
    if "\0" in argument or max(len(os.fsencode(part)) for part in argument.split("/")) > 255:
        raise UserError(f"data {shown(name)}: no such file or folder")
    if of_texts is not None and head != "hf" and of_texts != (head in TEXT_LOADERS):
        what = "texts" if of_texts else "images"
        raise UserError(f"{setting('validation', name)}: the data are {what}, and so must these be")
