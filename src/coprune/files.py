"""Files appear whole or not at all: write beside, fsync, rename.

Knows nothing of torch, so that plans, results and reports can be read without it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import from_json

from coprune.distributed.world import is_first
from coprune.errors import UnwrittenError, UserError
from coprune.progress import remark

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things in a document."""

Figure = Annotated[float, Field(gt=-1e15, lt=1e15)]
"""A measured figure: so far from infinity that sums and ratios are finite too."""

LARGE = 1 << 29
"""Bytes that a document with an entry for every unit may have; others 64 MB."""


@contextlib.contextmanager
def writing(path: Path, *, size: int | None = None) -> Iterator[None]:
    """What the system refuses inside is said in one line.

    Args:
        path: what is written.
        size: of what is written, in bytes.

    Raises:
        UnwrittenError: no free disk, no permission, a parent that is no folder, a broken disk.
    """
    try:
        yield
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            much = "" if size is None else f" for {size:,} bytes"
            raise UnwrittenError(f"{path}: no free disk{much}", "free some") from cause
        raise UnwrittenError(f"{path}: cannot be written ({cause.strerror})", "mend that") from cause


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the system refuses inside is said in one line.

    Raises:
        UserError: no permission, a broken disk, a name that can be none.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as cause:
        why = getattr(cause, "strerror", None) or cause
        raise UserError(f"{path}: cannot be read ({why})") from cause


@contextlib.contextmanager
def dispensable(what: str) -> Iterator[None]:
    """What is written inside would only have spared work: where it cannot be, that is said, and no more.

    Args:
        what: it is, as the subject of a sentence.
    """
    try:
        yield
    except UnwrittenError as cause:
        remark(f"{cause.what}; {what} is left out, the run goes on", about=what)


def check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a pipe or a device.

    Raises:
        UserError: names it.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is {'a folder' if path.is_dir() else 'no regular file'}; name a file")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it.

    Of the processes of a run only the first writes.

    Raises:
        UnwrittenError: see :func:`writing`.
        UserError: see :func:`check_replaceable`.
    """
    if not is_first():
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path, size=len(content)):
        check_replaceable(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:  # an interrupt, too
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a file of lines; the first of the processes of a run does.

    Raises:
        UnwrittenError: see :func:`writing`.
    """
    if not is_first():
        return
    content = f"{line}\n".encode()
    with writing(path, size=len(content)), open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)  # no half of a line
            raise


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UnwrittenError: see :func:`writing`.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, indented, whole or not at all. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def check_regular(path: Path, *, what: str, limit: int | None = None) -> None:
    """Refuse what is no file of bytes that end: a folder, a pipe, a device, or more bytes than ``limit``.

    Args:
        path: the file.
        what: how a message names it, e.g. "plan".
        limit: bytes that it may have; None: any number.

    Raises:
        UserError: one of these, or missing.
    """
    with reading(path):
        try:
            found = path.stat()
        except FileNotFoundError as cause:
            raise UserError(f"{path}: no such {what}") from cause
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise UserError(f"{path}: cannot be read (it is {kind}, no {what}); name a file")
    if limit is not None and found.st_size > limit:
        raise UserError(f"{path}: {found.st_size:,} bytes are too many for a {what}; make it again")


def read_text(path: Path, *, what: str, limit: int = 1 << 26) -> str:
    """A text file in UTF-8, with a byte order mark or without.

    Raises:
        UserError: see :func:`check_regular`; unreadable, or not UTF-8.
    """
    check_regular(path, what=what, limit=limit)
    with reading(path):
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise UserError(f"{path}: not a {what}: not UTF-8 (byte {cause.start})") from cause


def read_json(path: Path, *, what: str, limit: int = 1 << 26) -> Any:
    """Read a JSON file. Numbers are finite, texts can be written again, and nothing is nested endlessly.

    Args:
        path: the file.
        what: how a message names it, e.g. "plan".
        limit: bytes that it may have.

    Raises:
        UserError: see :func:`read_text`; truncated or foreign.
    """
    text = read_text(path, what=what, limit=limit)
    try:
        return parse_json(text)
    except ValueError as cause:
        raise UserError(f"{path}: truncated or not a {what} of coprune ({cause}); make it again") from cause


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON; NaN, numbers beyond those of a float, half of a character, or nested more than
            200 deep.
    """
    value = from_json(text)
    json.dumps(value, allow_nan=False)
    return value
