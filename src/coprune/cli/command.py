"""A subcommand: a function whose settings become options, and a check of every text that is typed."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional, get_type_hints

import typer
from typer.core import TyperCommand

from coprune.errors import UserError, setting, shown
from coprune.options import Option, Options, made, options_of, words

LONGEST = 255
"""Bytes of a file's name, on the usual file systems."""

Run = Annotated[Path, typer.Argument(help="A run folder.")]

HEADINGS = (
    "The model", "The data", "The task", "Pruning", "Comparison", "What to keep", "What to remove",
    "A method's own", "Training", "Where it runs", "What is written",
)  # fmt: skip
"""Of options, in this order; others follow."""


class Command(TyperCommand):
    """Names that no file system or page can hold are refused before a command begins."""

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


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A function for typer, in which the options of settings stand for every parameter that is settings.

    Args:
        function: its parameters are :class:`~coprune.options.Options`, or typed as typer wants them.
    """
    kinds = _kinds(function)
    parameters = [p for name, p in inspect.signature(function).parameters.items() if name not in kinds]
    hints = get_type_hints(function, include_extras=True)
    plain = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in parameters]

    def run(**typed: Any) -> None:
        given = {p.name: typed[p.name] for p in plain}
        function(**given, **{name: made(kind, _read(kind, typed)) for name, kind in kinds.items()})

    run.__doc__ = function.__doc__
    run.__signature__ = inspect.Signature([*plain, *map(_parameter, options_in(function))])  # type: ignore[attr-defined]
    return run


def options_in(function: Callable[..., None]) -> list[Option]:
    """The options of a command: what must be given first, then by their headings."""
    found = {name: o for kind in _kinds(function).values() for name, o in options_of(kind).items()}
    headings = [*HEADINGS, *(o.heading for o in found.values())]
    return sorted(found.values(), key=lambda o: (not o.required, headings.index(o.heading)))


def _kinds(function: Callable[..., None]) -> dict[str, type[Options]]:
    hints = get_type_hints(function)
    hints.pop("return", None)
    return {name: k for name, k in hints.items() if isinstance(k, type) and issubclass(k, Options)}


def _parameter(option: Option) -> inspect.Parameter:
    """What typer reads: texts, since the settings know which values are allowed; flags are flags."""
    flag = f"--{option.name.replace('_', '-')}"
    default: Any = option.default
    if option.is_flag:
        kind: Any = bool
        flag += f"/--no-{flag[2:]}" if default else ""
        metavar = None
    else:
        kind = Path if option.is_path else str
        plain = "NUMBER" if option.is_number and not option.is_list else "TEXT"
        metavar = "PATH" if option.is_path else plain
        default = ",".join(map(str, default)) if isinstance(default, tuple) else default
        kind, default = (kind, str(default)) if default not in (None, "") else (Optional[kind], None)
    help = sentence(option.help)
    info = typer.Option(flag, help=help, metavar=metavar, rich_help_panel=option.heading)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if option.required else default,
        annotation=Annotated[kind, info],
    )


def sentence(help: str) -> str:
    """A line of a docstring as help: a capital, no markup."""
    plain = re.sub(r"``|:\w+:`~?|`", "", help)
    return plain if help.startswith("``") else plain[:1].upper() + plain[1:]


def _read(kind: type[Options], typed: dict[str, Any]) -> dict[str, Any]:
    """What was typed, as settings take it: lists apart, paths as texts."""
    found = {}
    for name, option in options_of(kind).items():
        value = typed.get(name)
        found[name] = words(value, name=name) if option.is_list and isinstance(value, str) else value
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}
