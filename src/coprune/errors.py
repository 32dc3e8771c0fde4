"""The one error a user is meant to read.

Everything a user can get wrong ends as :class:`UserError`: one line that names the cause and the
way out. The command line prints that line and exits with code 2; from Python it is a ``ValueError``.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """Bad input: the message is one line, cause first, then the way out."""


class UnwrittenError(UserError):
    """Something could not be written, for no fault of what was asked: it can be gone on with later.

    Args:
        what: path and cause.
        first: what the user is to do before anything else.
    """

    def __init__(self, what: str, first: str, then: str = "or choose another --out") -> None:
        super().__init__(what, first, then)
        self.what, self.first = what, first

    def __str__(self) -> str:
        return "{}; {} {}".format(*self.args)


_NAMED = 40  # of a library's thousand names


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
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"known: {', '.join(names[:_NAMED])}{more}"


_typed: ContextVar[bool] = ContextVar("typed", default=False)

_OPTION_OF = {"calibration_samples": "calibration"}
"""Arguments whose option has another name."""


@contextmanager
def typed_on_the_command_line() -> Iterator[None]:
    """Within the context messages name options; outside they name Python arguments."""
    before = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(before)


def setting(name: str, *value: object) -> str:
    """A setting as the user gives it: ``--keep-macs`` or ``keep_macs``.

    Args:
        name: of the argument.
        value: if there is one, it is named too: ``--keep-macs 0.5`` or ``keep_macs=0.5``; names as a tuple.
    """
    if _typed.get():
        words = (",".join(v) if isinstance(v, tuple) else v for v in value)
        return " ".join([f"--{_OPTION_OF.get(name, name).replace('_', '-')}", *map(shown, words)])
    return "=".join([name, *map(shown, value)])


def visible(text: str) -> str:
    """Text without control characters, so that no name moves the cursor or breaks a line."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c
        for c in text
    )


def shown(value: object, *, most: int = 60) -> str:
    """A value in a message: on one line, its middle left out when it is long."""
    try:
        text = visible(" ".join((value if isinstance(value, str) else repr(value)).split()))
    except ValueError:  # an int of too many digits to be written
        text = f"a {type(value).__name__}"
    if not text:
        return "''"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"


def first_line(cause: BaseException) -> str:
    """The first line of an error's message that says something; its type where none does."""
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def kind_of(given: object) -> str:
    """A value in a message: ``a Tensor [16, 1, 28, 28]``, ``a list of 3``, ``the class Net``, ``None``."""
    if given is None or isinstance(given, type):
        return "None" if given is None else f"the class {given.__name__}"
    shape = getattr(given, "shape", None)
    shaped = f" {list(shape)}" if isinstance(shape, tuple) else ""
    of = f" of {len(given)}" if isinstance(given, list | tuple) else ""
    name = type(given).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' or name == 'ndarray' else 'a'} {name}{shaped}{of}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or PyTorch says that memory ran out."""
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in phrases)
    )


def first_mistake(cause: ValidationError) -> str:
    """The first thing that pydantic refuses, after its place: ``groups.0.size: Field required``."""
    first = cause.errors(include_url=False)[0]
    place = ".".join(shown(str(part)) for part in first["loc"])
    return f"{place}{': ' * bool(place)}{shown(first['msg'], most=300)}"


def refused(cause: ValidationError, *, named: Callable[[str], str] = str) -> UserError:
    """One line for a value that pydantic refuses, e.g. ``--schedule sine: Input should be 'cosine' …``.

    Args:
        cause: what it said; the first mistake counts.
        named: a field's name → the argument that the user gave it by.
    """
    first = cause.errors(include_url=False)[0]
    name = "_".join(part for part in first["loc"] if isinstance(part, str))
    return UserError(f"{setting(named(name), first['input'])}: {first['msg']}")
