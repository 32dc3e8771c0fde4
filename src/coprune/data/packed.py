"""Files that may be packed with gzip: found, and read."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from coprune.errors import UserError
from coprune.files import check_regular

DOWNLOADS = Path("~/.cache/coprune").expanduser()
"""Where data that is fetched goes, unless a folder is named."""


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


def first_file(folders: Iterable[Path], stems: Sequence[str], kinds: Sequence[str] = ("",)) -> Path | None:
    """The first file that exists, packed or not: by its folder, then its stem, then its suffix."""
    names = [f"{stem}{kind}{gz}" for stem in stems for kind in kinds for gz in ("", ".gz")]
    return next((folder / n for folder in folders for n in names if (folder / n).is_file()), None)
