"""Arguments that all of the project's networks take."""

from __future__ import annotations


def require_positive(**values: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: names the argument.
    """
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
