"""What a job reads, as far as it lies on this disk, so that no output is put in its place."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from coprune.data.names import check_known as check_data
from coprune.errors import UserError, setting
from coprune.models.names import check_known as check_model
from coprune.options import DATA, MODEL, Options, Reads, of_kind

_job_file: ContextVar[Path | None] = ContextVar("job_file", default=None)


@contextmanager
def described_in(job_file: Path) -> Iterator[None]:
    """Within the context the job is one that a file describes: the file is an input, too."""
    token = _job_file.set(job_file)
    try:
        yield
    finally:
        _job_file.reset(token)


def check_there(job: Options) -> None:
    """Refuse names of data and models that are none, and files that are missing.

    Raises:
        UserError: with near matches.
    """
    for name, value, reads in sorted(_reads(job), key=lambda read: read[2] != DATA):
        if reads == MODEL:
            check_model(value)
        elif reads == DATA and not (name == "validation" and _is_number(value)):
            check_data(value)
            kind, _, where = value.partition(":")
            if where and kind in ("npz", "tsv", "lines") and not Path(where).expanduser().exists():
                raise UserError(f"{value}: no such file: {where}")
        elif reads.kind and not Path(value).exists():
            raise UserError(f"{value}: no such {reads.kind}")


def _is_number(validation: str) -> bool:
    return validation == "none" or validation.isdecimal()


def _reads(job: Options) -> Iterator[tuple[str, str, Reads]]:
    """Every option that names an input, its value, and what that names."""
    for name, field in type(job).model_fields.items():
        value, reads = getattr(job, name), of_kind(field, Reads)
        if isinstance(value, Options):
            yield from _reads(value)
        elif value and reads:
            yield name, str(value), reads


def check_apart(out: Path, job: Options) -> None:
    """Refuse an output folder that is, or holds, what a job reads.

    Args:
        out: the folder.
        job: what was asked for.

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


def _inputs(job: Options) -> Iterator[tuple[str, Path]]:
    """Every input in words, and the files and folders that it stands for."""
    file = _job_file.get()
    if file is not None:
        yield f"the job file {file}", file
    places = {"model": _of_model, "data": _of_data, "path": lambda path: [Path(path).expanduser()]}
    for name, value, reads in _reads(job):
        for place in filter(Path.exists, places[reads.what](value)):
            yield setting(name, value), place
            for entry in place.iterdir() if place.is_dir() else ():
                if entry.is_symlink():  # as in a hub's cache
                    yield setting(name, value), entry


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
