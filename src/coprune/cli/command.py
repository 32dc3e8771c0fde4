"""A subcommand of ours: names that no file system or page can hold are refused before it begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from coprune.errors import UserError, setting, shown

LONGEST = 255
"""Bytes of a file's name, on the usual file systems."""


class Command(TyperCommand):
    """Looks at all texts that were typed."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Check, then run."""
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            if isinstance(value, str | Path):
                typed = parameter.param_type_name == "option"
                what = setting(str(parameter.name)) if typed else str(parameter.name).upper()
                if parameter.required and not str(value).strip():
                    raise UserError(f"{what} is empty")
                check_name(value, what=what)
        return super().invoke(ctx)


def check_name(value: str | Path, *, what: str) -> None:
    """Refuse a text that cannot be written into a file, and a path that cannot be one.

    Args:
        value: as typed.
        what: how a message names it.

    Raises:
        UserError: NUL, other bytes than UTF-8, or a part that is too long.
    """
    text = str(value)
    if "\0" in text:
        raise UserError(f"{what} {shown(text)}: no name has a NUL character in it")
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise UserError(f"{what} {shown(text)}: is not UTF-8; rename it") from cause
    for part in value.parts if isinstance(value, Path) else ():
        if len(os.fsencode(part)) > LONGEST:
            raise UserError(
                f"{what} {shown(text)}: a name of {len(os.fsencode(part))} bytes; file systems take {LONGEST}"
            )
