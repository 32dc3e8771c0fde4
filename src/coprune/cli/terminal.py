"""What commands print. Data is never read as markup, moves no cursor, and stops no command.

A reader that has gone (``| head``) is no error; a full or closed standard output, a terminal that lacks a
letter and a file system that refuses a name are at most one line.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from coprune.errors import UserError, is_out_of_memory, shown, visible


def say(text: str = "", *, bold: str = "") -> None:
    """Print one line.

    Args:
        text: the line.
        bold: printed before it, in bold.
    """
    from rich.text import Text

    _console().print(Text.assemble((visible(bold), "bold"), visible(text)), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str] | None], *, width: int | None = None) -> None:
    """Print a table.

    Args:
        columns: their names; after ``>`` what is below stands at the right.
        rows: a text a column; None: a gap.
        width: of the terminal, where it is to be another.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False)
    for name in columns:
        made.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    for row in rows:
        if row is None:
            made.add_section()
        else:
            made.add_row(*(Text(visible(cell)) for cell in row))
    _console(width).print(made)


def _console(width: int | None = None) -> Any:
    from rich.console import Console

    return Console(width=width, markup=False, highlight=False, emoji=False)


@contextmanager
def streams() -> Iterator[None]:
    """Within the context standard streams can be written to, and what the system refuses is one line.

    Raises:
        UserError: standard output, a file or memory is refused.
        SystemExit: of a reader that has gone, with 0.
    """
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except SystemExit as ended:
        # typer's and rich's own answer to a reader that has gone is exit 1
        if not _has_gone(ended.__context__):
            raise
        _discard()
        sys.exit(0)
    except OSError as cause:
        if _has_gone(cause):
            _discard()
            sys.exit(0)
        if cause.filename is None:
            _discard()
        where = "standard output" if cause.filename is None else shown(os.fsdecode(cause.filename))
        raise UserError(f"{where}: {cause.strerror or cause}") from cause
    except (MemoryError, RuntimeError) as cause:
        if not is_out_of_memory(cause):
            raise
        raise UserError("memory ran out; give smaller batches or samples, or free some") from cause


def _has_gone(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno == errno.EPIPE


def _discard() -> None:
    """Send what is still to be printed nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed() -> None:
    """Closed streams lead nowhere; else the next file that is opened would take their place."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for the life of the process
