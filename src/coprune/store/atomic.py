"""Files appear whole or not at all: write beside, fsync, rename."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from coprune.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it.

    Raises:
        UserError: no free disk, no permission, or a parent that is no folder.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as cause:
        beside.unlink(missing_ok=True) if beside.parent.is_dir() else None
        if cause.errno == errno.ENOSPC:
            raise UserError(
                f"{path}: no free disk for {len(content):,} bytes; free some or choose another --out"
            ) from cause
        raise UserError(f"{path}: cannot be written ({cause.strerror}); choose another --out") from cause


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
        raise UserError(
            f"{path}: truncated or not a {what} of coprune ({cause}); make it again"
        ) from cause


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> int:
    """Write tensors as safetensors, whole or not at all. Returns the file's size in bytes."""
    content = tensor_bytes(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
        metadata=dict(metadata) if metadata else None,
    )
    write_bytes(path, content)
    return len(content)


def read_tensors(path: Path, *, what: str) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: missing, truncated or foreign.
    """
    try:
        return load_tensors(path.read_bytes())
    except FileNotFoundError as cause:
        raise UserError(f"{path}: no such {what}") from cause
    except OSError as cause:
        raise UserError(f"{path}: cannot be read ({cause.strerror})") from cause
    except (SafetensorError, ValueError) as cause:
        raise UserError(f"{path}: truncated or not safetensors ({cause}); make it again") from cause
