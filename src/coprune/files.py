"""Files appear whole or not at all: write beside, fsync, rename. JSON documents with a schema.

Knows nothing of torch, so that plans, results and reports can be read without it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from coprune.errors import UserError
from coprune.ranks.who import is_first

D = TypeVar("D", bound=BaseModel)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it.

    Of the processes of a run only the first writes.

    Raises:
        UserError: no free disk, no permission, or a parent that is no folder.
    """
    if not is_first():
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as cause:
        # Also when interrupted: nothing half-written stays.
        with contextlib.suppress(OSError):
            beside.unlink()
        if not isinstance(cause, OSError):
            raise
        raise _unwritten(path, cause, size=len(content)) from cause


def append_line(path: Path, line: str) -> None:
    """Add a line to a file of lines; the first of the processes of a run does.

    Raises:
        UserError: no free disk, or no permission.
    """
    if not is_first():
        return
    content = f"{line}\n".encode()
    try:
        with open(path, "ab") as file:
            file.write(content)
    except OSError as cause:
        raise _unwritten(path, cause, size=len(content)) from cause


def _unwritten(path: Path, cause: OSError, *, size: int) -> UserError:
    if cause.errno == errno.ENOSPC:
        return UserError(f"{path}: no free disk for {size:,} bytes; free some or choose another --out")
    return UserError(f"{path}: cannot be written ({cause.strerror}); choose another --out")


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        UserError: no permission, or a parent that is no folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise UserError(f"{path}: cannot be made ({cause.strerror}); choose another --out") from cause


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, indented, whole or not at all. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: how a message names it, e.g. "plan".

    Raises:
        UserError: missing, truncated or foreign.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as cause:
        raise UserError(f"{path}: no such {what}") from cause
    except OSError as cause:
        raise UserError(f"{path}: cannot be read ({cause.strerror})") from cause
    except ValueError as cause:
        raise UserError(f"{path}: truncated or not a {what} of coprune ({cause}); make it again") from cause


def read_document(path: Path, kind: type[D], *, what: str, schema: int, older: Collection[int] = ()) -> D:
    """Read a JSON document that states its schema, as a pydantic value.

    Args:
        path: the file.
        kind: the value's type.
        what: how a message names it, e.g. "plan".
        schema: the schema this version writes.
        older: schemas that ``kind`` reads too.

    Raises:
        UserError: missing, truncated, foreign, or of another schema.
    """
    content = read_json(path, what=what)
    if not isinstance(content, dict) or "schema" not in content:
        raise UserError(f"{path}: not a {what} of coprune")
    if content["schema"] not in (schema, *older):
        raise UserError(
            f"{path}: {what} schema {content['schema']}, this coprune reads {schema}; "
            "use the version that wrote it"
        )
    try:
        return kind(**content)
    except ValidationError as cause:
        first = cause.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise UserError(f"{path}: not a valid {what}: {place}: {first['msg']}") from cause
