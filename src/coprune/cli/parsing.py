"""Typed text to checked values; every mistake ends as one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from coprune.bounds import Channels, Classes
from coprune.errors import UserError, refused, setting

M = TypeVar("M", bound=BaseModel)


def validated(kind: Callable[..., M], /, *, named: Callable[[str], str] = str, **values: Any) -> M:
    """Make a settings value, naming the option when a value is refused.

    Args:
        kind: what makes it: its type.
        named: a field's name → the option's, without dashes.
        values: the fields.

    Raises:
        UserError: e.g. ``--schedule sine: Input should be 'cosine', 'onecycle', …``.
    """
    try:
        return kind(**values)
    except ValidationError as cause:
        raise refused(cause, named=named) from cause


def checked(kind: Any, value: Any, *, name: str) -> Any:
    """One value of a kind, e.g. one of :mod:`coprune.bounds`, of an option that no settings have.

    Raises:
        UserError: it is refused.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as cause:
        raise refused(cause, named=lambda _: name) from cause


def given(**values: Any) -> dict[str, Any]:
    """The values that were typed (not None)."""
    return {key: value for key, value in values.items() if value is not None}


def model_arguments(in_channels: int | None, num_classes: int | None, width: int | None) -> dict[str, int]:
    """The factory arguments that were typed."""
    return given(
        in_channels=checked(Channels | None, in_channels, name="in_channels"),
        num_classes=checked(Classes | None, num_classes, name="num_classes"),
        width=checked(Channels | None, width, name="width"),
    )


def numbers(text: str, *, name: str, kind: Any) -> tuple[Any, ...]:
    """Numbers of a kind separated by commas; none of empty text.

    Raises:
        UserError: anything else.
    """
    return checked(tuple[kind, ...], words(text, name=name), name=name)


def words(text: str, *, name: str) -> tuple[str, ...]:
    """Names separated by commas; none of empty text.

    Raises:
        UserError: commas alone.
    """
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if text.strip() and not found:
        raise UserError(f"{setting(name, text)}: names or numbers separated by commas")
    return found
