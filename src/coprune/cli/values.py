"""Typed text to checked values; every mistake ends as one line."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from coprune.errors import UserError, option, refused

M = TypeVar("M", bound=BaseModel)
N = TypeVar("N", int, float)


def validated(kind: type[M], /, *, prefix: str = "", **values: Any) -> M:
    """Make a settings value, naming the option when a value is refused.

    Args:
        kind: what to make.
        prefix: of the options' names before the fields'.
        values: the fields.

    Raises:
        UserError: e.g. ``--schedule sine: Input should be 'cosine', 'onecycle', …``.
    """
    try:
        return kind(**values)
    except ValidationError as cause:
        raise refused(cause, named=lambda name: option(f"{prefix}{name}")) from cause


def given(**values: Any) -> dict[str, Any]:
    """The values that were typed (not None)."""
    return {key: value for key, value in values.items() if value is not None}


def model_arguments(in_channels: int | None, num_classes: int | None, width: int | None) -> dict[str, int]:
    """The factory arguments that were typed."""
    return given(in_channels=in_channels, num_classes=num_classes, width=width)


def numbers(text: str, *, option: str, kind: type[N]) -> tuple[N, ...]:
    """Positive numbers separated by commas.

    Raises:
        UserError: anything else.
    """
    try:
        found = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if any(not value > 0 for value in found) or (text.strip() and not found):
        raise UserError(f"--{option} {text}: numbers above 0, separated by commas")
    return found


def words(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def finetune_recipe(**values: Any) -> Any:
    """The recipe of ``--finetune-…``; messages name the option that was typed.

    Args:
        values: of :func:`coprune.training.finetuning`.

    Raises:
        UserError: a value out of range.
    """
    from coprune.training import finetuning

    try:
        return finetuning(**values)
    except ValidationError as cause:
        shared = ("batch_size", "distill", "match", "precision")
        raise refused(
            cause, named=lambda name: option(name if name in shared else f"finetune_{name}")
        ) from cause
