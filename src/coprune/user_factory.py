"""A user's own code behind ``python:package.module:name``: found and run, errors in one line."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coprune.errors import UserError, near_matches, shown
from coprune.user_code import message_of, place_of

PYTHON = "python:"
"""Begins the name of a user's own function."""


def user_factory(name: str, what: str = "model", *, makes: str = "factory") -> Callable[..., Any]:
    """What a name stands for; the current folder counts, before all others.

    Args:
        name: ``python:package.module:name``.
        what: it is, for messages: ``model``.
        makes: what the function is called in a message on its form: ``factory``.

    Raises:
        UserError: another form of name, a module that is not there or fails, no such function in it.
    """
    module_name, _, attribute = name.removeprefix(PYTHON).partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not attribute.isidentifier():
        stem = Path(module_name).name.removesuffix(".py")
        file = stem.isidentifier() and stem != module_name
        hint = f"; did you mean {PYTHON}{stem}:{attribute or makes}, in that folder?" if file else ""
        raise UserError(f"{what} '{shown(name)}': write {PYTHON}package.module:{makes}{hint}")
    with user_code(name, what):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as cause:
            if cause.name is None or not f"{module_name}.".startswith(f"{cause.name}."):
                raise  # of a module that theirs imports
            raise UserError(
                f"{what} '{name}': {module_name} cannot be imported ({cause}); "
                "is it in this folder, or on PYTHONPATH?"
            ) from cause
        if not hasattr(module, attribute):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            near = near_matches(attribute, names)
            raise UserError(f"{what} '{name}': {module_name} has no callable '{attribute}'; {near}")
        found = getattr(module, attribute)
    if not callable(found):
        raise UserError(f"{what} '{name}' is no function but {shown(found)}; give a function")
    return found


@contextmanager
def user_code(name: str, what: str = "model") -> Iterator[None]:
    """Within the context the current folder's modules can be imported, and whatever is raised is one line.

    Args:
        name, what: the message begins with, ``what 'name' fails in …``.

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
        place = place_of(cause)
        raise UserError(
            f"{what} '{name}' fails{f' in {place}' if place else ''}: {message_of(cause)}"
        ) from cause
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            sys.path.append(here)  # for what is imported later, by a forward pass
