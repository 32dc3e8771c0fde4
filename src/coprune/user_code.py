"""What a user's own code raised (a loader, a factory), in one line with its place."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coprune.errors import UserError, shown

_NOT_THEIRS = tuple(
    str(Path(place).resolve()) + os.sep
    for place in (*sysconfig.get_paths().values(), str(Path(__file__).parent))
)
"""Where code lies that is not the user's."""

_REMOTE = "Original Traceback (most recent call last):"
"""Behind it stands the text of what a worker of a ``DataLoader`` raised."""


def raised(cause: BaseException) -> str:
    """Type, message and place of what a user's code raised: ``ValueError: no label (mine.py, line 12)``."""
    place = place_of(cause)
    return f"{message_of(cause)} ({place})" if place else message_of(cause)


def message_of(cause: BaseException) -> str:
    """Type and message in one line, also of what a worker of a ``DataLoader`` raised."""
    if isinstance(cause, SystemExit):
        return f"it ends the program (sys.exit({'' if cause.code is None else shown(cause.code)}))"
    text = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    _, marker, remote = text.partition(_REMOTE)
    if marker:
        # Behind the lines of code, which are indented, stands its type, a colon, and its message.
        lines = [line for line in remote.splitlines() if line and not line.startswith(" ")]
        text = "\n".join(lines).partition(": ")[2]
    return f"{type(cause).__name__}: {shown(text, most=300)}" if text else type(cause).__name__


def place_of(cause: BaseException) -> str:
    """The innermost line that is the user's, ``mine.py, line 12``; nothing where none is."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(cause.__traceback__)]
    if isinstance(cause, SyntaxError) and cause.filename:
        places.append((cause.filename, cause.lineno))
    remote = str(cause).partition(_REMOTE)[2]
    places += [(file, int(line)) for file, line in re.findall(r'File "(.+?)", line (\d+)', remote)]
    theirs = [(f, n) for f, n in places if Path(f).is_file() and not f.startswith(_NOT_THEIRS)]
    if not theirs:
        return ""
    file, line = theirs[-1]
    return f"{shown(os.path.relpath(file) if Path.cwd() in Path(file).parents else file)}, line {line}"


def code_of(cause: BaseException) -> str:
    """The innermost line beyond PyTorch and this package: ``x.view(-1, 80) (a.py, line 3)``."""
    inside = (_NOT_THEIRS[-1], f"{os.sep}site-packages{os.sep}torch{os.sep}")
    frames = traceback.extract_tb(cause.__traceback__)
    theirs = [f for f in frames if f.line and not any(part in f.filename for part in inside)]
    return f"{theirs[-1].line} ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""


@contextmanager
def within(where: str) -> Iterator[None]:
    """Within the context refusals say where: ``train=, batch 3: …``. Nothing is added for ``""``."""
    try:
        yield
    except UserError as cause:
        if not where:
            raise
        raise type(cause)(f"{where}: {cause}") from cause
