"""The one error a user is meant to read.

Everything a user can get wrong ends as :class:`UserError`: one line that names the cause and the
way out. The command line prints that line and exits with code 2; from Python it is a ``ValueError``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """Bad input: the message is one line, cause first, then the way out."""


def near_matches(word: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" message: close names first, else all of them.

    Args:
        word: what the user typed.
        known: the names that exist.

    Returns:
        ``"did you mean a, b?"`` when something is close, else ``"known: a, b, c"``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"known: {', '.join(names)}"


def option(name: str) -> str:
    """A field's name as the option that is typed, before its value."""
    return f"--{name.replace('_', '-')} "


def argument(name: str) -> str:
    """A field's name as an argument from Python, before its value."""
    return f"{name}="


def refused(cause: ValidationError, *, named: Callable[[str], str] = option) -> UserError:
    """One line for a value that pydantic refuses, e.g. ``--schedule sine: Input should be 'cosine' …``.

    Args:
        cause: what it said; the first mistake counts.
        named: how the field is called where the user gave it: :func:`option`, :func:`argument`.
    """
    first = cause.errors()[0]
    name = "-".join(part for part in first["loc"] if isinstance(part, str))
    return UserError(f"{named(name)}{first['input']}: {first['msg']}")
