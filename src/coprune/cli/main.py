"""The command line: subcommands are imported when they are asked for, and torch when they compute."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from coprune.cli.terminal import streams
from coprune.distributed.launch import interrupted, is_loss, joined, leave, lost
from coprune.distributed.world import world
from coprune.errors import UserError, typed_on_the_command_line, visible
from coprune.lazy import imported

try:  # typer carries click inside since 0.26
    from typer.exceptions import TyperException as UsageMistake
except ImportError:
    from click import ClickException as UsageMistake  # type: ignore[assignment]

COMMANDS = {
    "demo": "Prune the bundled ResNet-20 to half of its MACs on bundled images.",
    "train": "Train a base model and write it as a run folder.",
    "prune": "Prune a trained model: select, cut, recover, fine-tune, measure, report.",
    "recover": "Bring back the accuracy of a model that was pruned anywhere.",
    "compare": "Compare methods at the same MACs, with the same recovery and fine-tuning.",
    "inspect": "Say what stayed in every group, why, and which layers were left alone.",
    "measure": "Measure the model of a run: MACs, parameters, size, memory, latency, accuracy.",
    "report": "Write the page of a run or of a comparison anew.",
    "export": "Write the model of a run as ONNX or for torch.export.",
    "run": "Run a command described in a TOML file.",
}
"""Subcommands, each a function of its name in a module of its name; ``report`` stands beside ``inspect``."""

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


class _Stopped(BaseException):
    """Ctrl-C or SIGTERM; typer makes a silent exit of Python's own KeyboardInterrupt."""

    number = 0
    """Of the signal, once there was one: an import that is broken off may end as some other error."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """Within the context the signals that stop a run are raised where it is."""

    def stop(number: int, _: object) -> NoReturn:
        _Stopped.number = number
        raise _Stopped(number)

    _Stopped.number = 0
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        with _stoppable():
            _run()
    except (SystemExit, UserError):
        raise
    except BaseException:
        if not _Stopped.number:
            raise
        leave(interrupted(_Stopped.number), code=128 + _Stopped.number)


def _run() -> None:
    command = typer.main.get_command(app)
    try:
        with typed_on_the_command_line(), streams(), joined():
            code = command.main(prog_name="coprune", standalone_mode=False)
        if code == 128 + signal.SIGINT:
            raise KeyboardInterrupt  # typer has made an exit of it
    except UserError as mistake:
        _refuse(str(mistake), mistake)
    except UsageMistake as mistake:
        # Unknown and missing options: click's own text would be four lines.
        _refuse(f"{mistake.format_message()} (coprune --help shows what there is)")
    except (KeyboardInterrupt, typer.Abort):
        leave(interrupted(), code=128 + signal.SIGINT)
    except RuntimeError as cause:
        if not is_loss(cause):
            raise
        leave(lost(), code=1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str, cause: BaseException | None = None) -> NoReturn:
    if _Stopped.number:
        raise _Stopped
    leave(visible(" ".join(message.split())), code=2, cause=cause)
