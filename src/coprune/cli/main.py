"""The command line: one file a subcommand; heavy imports happen inside them."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from coprune.cli.compare import compare
from coprune.cli.demo import demo
from coprune.cli.export import export
from coprune.cli.job import PASSED_ON, run
from coprune.cli.look import inspect, measure, report
from coprune.cli.prune import prune
from coprune.cli.recover import recover
from coprune.cli.train import train
from coprune.errors import UserError

try:  # typer carries click inside since 0.26
    from typer.exceptions import TyperException as UsageMistake
except ImportError:
    from click import ClickException as UsageMistake  # type: ignore[assignment]

app = typer.Typer(
    help="Complementary pruning for PyTorch: keep the channels that say different things.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (demo, train, prune, recover, compare, inspect, measure, report, export):
    app.command()(_command)
app.command(context_settings=PASSED_ON)(run)


@app.callback()
def _commands() -> None:
    """Complementary pruning for PyTorch: keep the channels that say different things."""


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name="coprune", standalone_mode=False)
    except UserError as mistake:
        _refuse(str(mistake))
    except UsageMistake as mistake:
        # Unknown and missing options: click's own text would be four lines.
        _refuse(f"{mistake.format_message()} (coprune --help shows what there is)")
    except (KeyboardInterrupt, typer.Abort):
        print("coprune: interrupted; --resume continues", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> NoReturn:
    print(f"coprune: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
