"""The subcommands: imported when they are typed, and torch when they compute."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coprune.distributed.world import world
from coprune.errors import UserError
from coprune.lazy import imported

COMMANDS = {
    "demo": "Prune the bundled ResNet-20 to half of its MACs on bundled images.",
    "train": "Train a base model and write it as a run folder.",
    "prune": "Prune a trained model: select, cut, recover, fine-tune, measure, report.",
    "recover": "Bring a model that was pruned anywhere nearer to the unpruned one.",
    "compare": "Compare methods at the same MACs, with the same recovery and fine-tuning.",
    "inspect": "Say what stayed in every group, why, and which layers were left alone.",
    "measure": "Measure the model of a run: MACs, parameters, size, memory, latency, metric.",
    "report": "Write the page of a run or of a comparison anew.",
    "export": "Write the model of a run as ONNX or for torch.export.",
    "run": "Run a command described in a TOML file.",
}
"""Subcommands, each a function of its name in a module of its name; ``report`` in that of ``inspect``."""

SHARED = ("demo", "train", "prune", "recover", "compare", "run")
"""Those that several processes can do together."""

_PLAIN: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


def function_of(name: str) -> Any:
    """The function of a subcommand."""
    return imported(f"coprune.cli.{'inspect' if name == 'report' else name}:{name}")


class Commands(TyperGroup):
    """Subcommands that are imported when they are typed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The one of that name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        from coprune.cli.command import Command, command

        alone = typer.Typer(**_PLAIN)
        passed_on = {"allow_extra_args": True, "ignore_unknown_options": True} if cmd_name == "run" else None
        alone.command(cmd_name, cls=Command, context_settings=passed_on)(command(function_of(cmd_name)))
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """What ``--help`` says of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(cls=Commands, **_PLAIN)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"coprune {version('coprune')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _commands(
    ctx: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Complementary pruning for PyTorch: keep the channels that say different things."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
    elif world() > 1 and ctx.invoked_subcommand not in SHARED:
        raise UserError(f"{ctx.invoked_subcommand} is done by one process; leave the launcher away")
