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
from coprune.errors import UserError, typed_on_the_command_line, visible
from coprune.ranks.join import LOST, is_loss, joined, leave
from coprune.ranks.who import world

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


SHARED = ("demo", "train", "prune", "recover", "compare", "run")
"""Commands that several processes can do together."""


@app.callback()
def _commands(ctx: typer.Context) -> None:
    """Complementary pruning for PyTorch: keep the channels that say different things."""
    if world() > 1 and ctx.invoked_subcommand not in SHARED:
        raise UserError(f"{ctx.invoked_subcommand} is done by one process; leave the launcher away")


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    command = typer.main.get_command(app)
    try:
        with typed_on_the_command_line(), joined():
            code = command.main(prog_name="coprune", standalone_mode=False)
    except UserError as mistake:
        _refuse(str(mistake))
    except UsageMistake as mistake:
        # Unknown and missing options: click's own text would be four lines.
        _refuse(f"{mistake.format_message()} (coprune --help shows what there is)")
    except (KeyboardInterrupt, typer.Abort):
        leave("interrupted; --resume continues", code=130, everybodys=True)
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RuntimeError as cause:
        if not is_loss(cause):
            raise
        leave(LOST, code=1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> NoReturn:
    leave(visible(" ".join(message.split())), code=2, everybodys=True)
