"""The command line: one file a subcommand; heavy imports happen inside them."""

from __future__ import annotations

import os
import sys

import typer

from coprune.cli.prune import prune
from coprune.cli.train import train
from coprune.errors import UserError

app = typer.Typer(
    help="Complementary pruning for PyTorch: keep the channels that say different things.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (prune, train):
    app.command()(_command)


@app.callback()
def _commands() -> None:
    """Complementary pruning for PyTorch: keep the channels that say different things."""


def main() -> None:
    """Entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        app()
    except UserError as mistake:
        print(f"coprune: {' '.join(str(mistake).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("coprune: interrupted; --resume continues", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
