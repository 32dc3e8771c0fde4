"""``coprune run job.toml``: a command and its options from a file, under the names of the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from coprune.cli.command import options_in
from coprune.cli.commands import function_of
from coprune.errors import UserError, near_matches, shown
from coprune.files import read_text
from coprune.pipeline.inputs import described_in
from coprune.pipeline.run_folder import COMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def arguments_of(path: Path) -> list[str]:
    """The command line that a job file stands for.

    The file says ``command = "prune"`` and one key an option, written with ``-`` or ``_``; lists
    become comma-separated values, true switches a flag on.

    Raises:
        UserError: missing file, no TOML, no or an unknown command, a value that is no option value.
    """
    text = read_text(path, what="job file")
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except RecursionError as cause:
        raise UserError(f"{path}: not TOML of a job (nested too deeply)") from cause
    except ValueError as cause:
        raise UserError(f"{path}: not TOML ({shown(str(cause), most=200)})") from cause
    command = content.pop("command", None)
    if command not in COMMANDS:
        raise UserError(f"{path}: command = {shown(repr(command))}; {near_matches(str(command), COMMANDS)}")
    flags = {option.name for option in options_in(function_of(command)) if option.is_flag}
    words = [command]
    for key, value in content.items():
        option = "--" + key.replace("_", "-")
        if value is False and key.replace("-", "_") in flags:
            continue
        several = value if isinstance(value, list) else [value]
        if value is False or not all(isinstance(one, (str, int, float)) for one in several):
            raise UserError(f"{path}: {shown(key)} = {shown(repr(value))} is no option value")
        words += [option] if value is True else [option, ",".join(map(str, several))]
    return words


def run(
    ctx: typer.Context,
    job: Annotated[Path, typer.Argument(help="TOML file with command = … and one key an option.")],
) -> None:
    """Run a command described in a TOML file. Options typed behind it win over the file's."""
    root = ctx.find_root().command
    # Of an option given twice the last one counts.
    words = arguments_of(job)
    if {"--resume", "--overwrite"} & set(ctx.args):  # one typed wins over the file's other
        words = [word for word in words if word not in ("--resume", "--overwrite")]
    with described_in(job):
        root.main(args=[*words, *ctx.args], prog_name="coprune", standalone_mode=False)
