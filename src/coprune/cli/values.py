"""Typed text to checked values; every mistake ends as one line."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from coprune.errors import UserError

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], **values: Any) -> M:
    """Make a settings value, naming the option when a value is refused.

    Raises:
        UserError: e.g. ``--schedule sine: Input should be 'cosine', 'onecycle', …``.
    """
    try:
        return model(**values)
    except ValidationError as cause:
        first = cause.errors()[0]
        option = "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise UserError(f"--{option} {first['input']}: {first['msg']}") from cause


def model_arguments(in_channels: int | None, num_classes: int | None, width: int | None) -> dict[str, int]:
    """The factory arguments that were typed."""
    given = {"in_channels": in_channels, "num_classes": num_classes, "width": width}
    return {key: value for key, value in given.items() if value is not None}
