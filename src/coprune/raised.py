"""What a user's own code raised (a loader, a factory), in one line with its place."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coprune.errors import UserError

_ELSEWHERE = (
    *(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")),
    str(Path(__file__).parent),
)
"""Where code is that no user of ours wrote."""


def raised(cause: BaseException) -> str:
    """Type, message and place of what a user's code raised: ``ValueError: no label (mine.py, line 12)``.

    The place is the innermost line that is of no library, if there is one; what a worker of a ``DataLoader``
    raised is a text, in which it is read.
    """
    text = str(cause)
    if isinstance(cause, SyntaxError) and cause.filename:
        return _in_one_line(cause, cause.msg, [(cause.filename, cause.lineno or 0)])
    head, marker, remote = text.partition("Original Traceback (most recent call last):")
    if not marker:
        frames = [(f.filename, f.lineno or 0) for f in traceback.extract_tb(cause.__traceback__)]
        return _in_one_line(cause, text, frames)
    found = [(file, int(line)) for file, line in re.findall(r'File "(.+?)", line (\d+)', remote)]
    # Its last part is the message, behind the lines of code; its type stands before a colon.
    said = [line for line in remote.splitlines() if line and not line.startswith(" ")]
    return _in_one_line(cause, (said or [head])[0].partition(": ")[2], found)


def _in_one_line(cause: BaseException, text: str, frames: list[tuple[str, int]]) -> str:
    said = next(iter(text.strip().splitlines()), "")
    name = type(cause).__name__
    own = [frame for frame in frames if not str(Path(frame[0]).resolve()).startswith(_ELSEWHERE)]
    place = own[-1] if own else None
    return f"{name}{f': {said}' if said else ''}{f' ({place[0]}, line {place[1]})' if place else ''}"


@contextmanager
def within(where: str) -> Iterator[None]:
    """Within the context refusals say where: ``train=, batch 3: …``. Nothing is added for ``""``."""
    try:
        yield
    except UserError as cause:
        if not where:
            raise
        raise type(cause)(f"{where}: {cause}") from cause
