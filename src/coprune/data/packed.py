"""Files that may be packed with gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from coprune.errors import UserError
from coprune.files import check_regular


def read_unpacked(path: Path, *, what: str = "file") -> bytes:
    """The content of a file, unpacked where its name ends in ``.gz``.

    Raises:
        UserError: missing or damaged.
    """
    check_regular(path, what=what)
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as cause:
        raise UserError(f"{path}: cannot be read ({cause}); fetch the file again") from cause
