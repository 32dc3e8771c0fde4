"""What a job reads, as far as it lies on this disk, so that no output is put in its place."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from coprune.errors import UserError, setting

_MODELS = ("model", "teacher")
_DATA = ("data", "validation")
_PLACES = ("weights", "plan", "tokenizer", "profile")

_job_file: ContextVar[Path | None] = ContextVar("job_file", default=None)


@contextmanager
def described_in(job_file: Path) -> Iterator[None]:
    """Within the context the job is one that a file describes: the file is an input, too."""
    token = _job_file.set(job_file)
    try:
        yield
    finally:
        _job_file.reset(token)


def check_apart(out: Path, job: Any) -> None:
    """Refuse an output folder that is, or holds, what a job reads.

    Args:
        out: the folder.
        job: a value with the fields of the commands' options; those of its ``settings`` count, too.

    Raises:
        UserError: names the input.
    """
    for named, place in _inputs(job):
        # Both where it seems to lie and where it does: neither may vanish.
        for way in (Path(os.path.abspath(place)), Path(os.path.realpath(place))):
            for depth, folder in enumerate((way, *way.parents)):
                if folder.exists() and os.path.samefile(folder, out):
                    verb = "holds" if depth else "is"
                    raise UserError(f"{out}: {verb} an input ({named}); choose another --out")


def _inputs(job: Any) -> Iterator[tuple[str, Path]]:
    """Every input in words, and the files and folders that it stands for."""
    file = _job_file.get()
    if file is not None:
        yield f"the job file {file}", file
    for source in (job, getattr(job, "settings", None)):
        for kind, reads in ((_MODELS, _of_model), (_DATA, _of_data), (_PLACES, _itself)):
            for field in kind:
                value = getattr(source, field, None)
                for place in reads(str(value)) if value else ():
                    if place.exists():
                        yield setting(field, value), place
                        for entry in place.iterdir() if place.is_dir() else ():
                            if entry.is_symlink():  # as in a hub's cache
                                yield setting(field, value), entry


def _itself(value: str) -> Iterator[Path]:
    yield Path(value).expanduser()


def _of_model(name: str) -> Iterator[Path]:
    scheme, colon, rest = name.partition(":")
    if not colon or Path(name).is_dir():
        yield Path(name)
    elif scheme == "hf":
        yield Path(rest).expanduser()
    elif scheme == "python":
        # The outermost package: finding it runs nothing.
        try:
            found = importlib.util.find_spec(rest.partition(":")[0].partition(".")[0])
        except (ImportError, ValueError):
            return
        for place in (found and found.origin, *((found and found.submodule_search_locations) or ())):
            if place:
                yield Path(place)


def _of_data(name: str) -> Iterator[Path]:
    """``KIND:PATH``, ``imagefolder:ROOT@SIZE``, ``hf:DIR:CONFIG``."""
    kind, _, rest = name.partition(":")
    if kind == "python":
        yield from _of_model(name)
    elif rest:
        places = {rest, rest.rpartition("@")[0], rest.rpartition(":")[0]} - {""}
        yield from (Path(place).expanduser() for place in sorted(places))
