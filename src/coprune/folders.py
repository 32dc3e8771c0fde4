"""Folders that one process owns, and that are replaced whole or not at all.

A lock is a ``flock`` on the folder itself: it ends with the process that holds it, however that ends, and
leaves no file. What is to replace ``R`` grows beside it, in ``.R.coprune-new``, and takes its place by two
renames; a kill between them is mended by whoever comes next.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from coprune.errors import UserError

try:
    import fcntl
except ImportError:  # Windows; nobody is locked out there
    fcntl = None  # type: ignore[assignment]


def real(folder: Path) -> Path:
    """Where a folder really is, symbolic links followed, whether it is there or not."""
    return Path(os.path.realpath(folder))


def newcomer(folder: Path) -> Path:
    """What is to take a (real) folder's place, beside it."""
    return folder.parent / f".{folder.name}.coprune-new"


def _leaving(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.coprune-old"


def lock(folder: Path, *, named: Path | None = None) -> int | None:
    """Take a folder for this process; what is handed back ends it, see :func:`unlock`.

    Args:
        folder: one that is there.
        named: what the message calls it.

    Returns:
        None where the file system knows no locks.

    Raises:
        UserError: another process has it.
        OSError: there is no such folder.
    """
    if fcntl is None:
        return None
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists() and os.path.samestat(os.fstat(held), folder.stat()):
            return held
    except BlockingIOError:
        pass
    except OSError:
        os.close(held)
        return None
    os.close(held)  # another process has it, or has just put another folder in its place
    raise UserError(f"{named or folder}: in use, another run is writing there; wait until it has ended")


def unlock(held: int | None) -> None:
    """End a lock."""
    if held is not None:
        os.close(held)


def check_idle(folder: Path) -> None:
    """Mend a folder (see :func:`mend`), and refuse one that a run is writing.

    Raises:
        UserError: it is in use.
    """
    mend(folder)
    for place in (folder, newcomer(real(folder))):
        if place.is_dir():
            unlock(lock(place, named=folder))


def replace(folder: Path) -> None:
    """Put the newcomer into a (real) folder's place, and remove what was there."""
    old = _leaving(folder)
    if folder.exists() and any(folder.iterdir()):
        folder.rename(old)
    newcomer(folder).rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def mend(folder: Path) -> None:
    """Finish what a kill inside :func:`replace` has left; nothing is done to a folder that is whole."""
    place = real(folder)
    new, old = newcomer(place), _leaving(place)
    if not old.exists():
        return
    if not place.exists():
        if new.exists():
            unlock(lock(new, named=folder))
            new.rename(place)
        else:
            old.rename(place)
            return
    shutil.rmtree(old, ignore_errors=True)
