"""A user's own code behind ``python:package.module:name``: found and run, errors in one line."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coprune.errors import UserError, near_matches, shown

SCHEME = "python:"

_NOT_THEIRS = tuple(
    str(Path(place).resolve()) + os.sep
    for place in (*sysconfig.get_paths().values(), str(Path(__file__).parents[1]))
)
"""Where code lies that is not the user's."""


def own_object(name: str) -> Any:
    """What a name stands for; the current folder counts, before all others.

    Args:
        name: ``python:package.module:name``.

    Raises:
        UserError: another form of name, a module that is not there or fails, no such name in it.
    """
    module_name, _, attribute = name.removeprefix(SCHEME).partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not attribute.isidentifier():
        stem = Path(module_name).name.removesuffix(".py")
        meant = f"{SCHEME}{stem}:{attribute or 'factory'}"
        hint = (
            f"; did you mean {meant}, in that folder?" if stem.isidentifier() and stem != module_name else ""
        )
        raise UserError(f"model '{shown(name)}': write {SCHEME}package.module:factory{hint}")
    with own_code(name):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as cause:
            if cause.name is None or not f"{module_name}.".startswith(f"{cause.name}."):
                raise  # of a module that theirs imports
            raise UserError(
                f"model '{name}': {module_name} cannot be imported ({cause}); "
                "is it in this folder, or on PYTHONPATH?"
            ) from cause
        if not hasattr(module, attribute):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise UserError(
                f"model '{name}': {module_name} has no callable '{attribute}'; "
                f"{near_matches(attribute, names)}"
            )
        return getattr(module, attribute)


@contextmanager
def own_code(name: str) -> Iterator[None]:
    """Within the context the current folder's modules can be imported, and whatever is raised is one line.

    Args:
        name: what the message begins with.

    Raises:
        UserError: names the file and the line of the user's code.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as cause:
        raise UserError(f"model '{name}' {_place_of(cause)}: {_said(cause)}") from cause
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)  # for what is imported later, by a forward pass


def _said(cause: BaseException) -> str:
    if isinstance(cause, SystemExit):
        return f"it ends the program (sys.exit({'' if cause.code is None else shown(cause.code)}))"
    text = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    return f"{type(cause).__name__}: {shown(text, most=300)}" if text else type(cause).__name__


def _place_of(cause: BaseException) -> str:
    """Where in the user's code it was raised, for the middle of a message."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(cause.__traceback__)]
    if isinstance(cause, SyntaxError) and cause.filename:
        places.append((cause.filename, cause.lineno))
    theirs = [(f, n) for f, n in places if Path(f).is_file() and not f.startswith(_NOT_THEIRS)]
    if not theirs:
        return "fails"
    file, line = theirs[-1]
    return (
        f"fails in {shown(os.path.relpath(file) if Path.cwd() in Path(file).parents else file)}, line {line}"
    )
