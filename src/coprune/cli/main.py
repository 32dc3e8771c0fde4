"""The command line from its start to its exit code: mistakes, signals and losses are one line each."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from coprune.cli.commands import app
from coprune.cli.terminal import streams
from coprune.distributed.launch import interrupted, is_loss, joined, leave
from coprune.errors import UserError, typed_on_the_command_line, visible

try:  # typer carries click inside since 0.26
    from typer.exceptions import TyperException as UsageMistake
except ImportError:
    from click import ClickException as UsageMistake  # type: ignore[assignment]


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
        leave(interrupted(signal.SIGTERM), code=1)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str, cause: BaseException | None = None) -> NoReturn:
    if _Stopped.number:
        raise _Stopped
    leave(visible(" ".join(message.split())), code=2, cause=cause)
