"""Imports that wait until something is used: names, options and help answer before torch is loaded."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from coprune.errors import UserError, near_matches

T = TypeVar("T")


def imported(place: str) -> Any:
    """What ``package.module:name`` stands for."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def required(module: str, what: str, *, extra: str) -> Any:
    """A module of a library that only some need.

    Args:
        module: its name.
        what: says who needs which library, for the message.
        extra: of coprune, which brings it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as cause:
        raise UserError(f"{what}: pip install coprune[{extra}]") from cause


def deferred(place: str) -> Callable[..., Any]:
    """The function ``package.module:name``, imported when it is first called."""

    def call(*values: Any, **named: Any) -> Any:
        return imported(place)(*values, **named)

    return call


def exports(package: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that imports a name when it is first used.

    Args:
        package: its ``__name__``. What it offers is what stands under its ``if TYPE_CHECKING:``, so that
            type checkers and Python read the same lines.
    """

    def load(name: str) -> Any:
        source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
        for line in ast.walk(ast.parse(source)):
            if isinstance(line, ast.ImportFrom) and any(name == alias.name for alias in line.names):
                value = imported(f"{line.module}:{name}")
                setattr(sys.modules[package], name, value)
                return value
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return load


class Registry(Mapping[str, T], Generic[T]):
    """Things by name, each imported when it is asked for.

    Args:
        kind: what they are, for messages: ``method``.
        places: name → ``package.module:attribute``.
    """

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        self._kind, self._places = kind, places

    def __getitem__(self, name: str) -> T:
        return imported(self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, name: str) -> T:
        """The thing of that name.

        Raises:
            UserError: unknown, with near matches.
        """
        self.check(name)
        return self[name]

    def check(self, name: str) -> None:
        """Refuse an unknown name.

        Raises:
            UserError: with near matches.
        """
        if name not in self:
            raise UserError(f"unknown {self._kind} '{name}'; {near_matches(name, self)}")
