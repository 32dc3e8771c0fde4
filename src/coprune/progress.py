"""Progress bars with an ETA on a terminal, silence elsewhere.

One bar at a time; a bar inside a bar (an epoch inside a layer-after-layer schedule) is shown below
it. Bars are drawn on standard error, so that tables on standard output can be piped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from coprune.distributed.world import is_first

T = TypeVar("T")

_active: Progress | None = None


def _new_display() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # rich draws a last frame even when the output is a file; users' logs should stay clean.
        disable=not (console.is_terminal and is_first()),
    )


_remarked: set[str] = set()


def remark(line: str, *, about: str) -> None:
    """Print a line on standard error, above the bar if there is one; one line about each thing."""
    if is_first() and about not in _remarked:
        _remarked.add(about)
        console = _active.console if _active else Console(stderr=True)
        console.print(f"coprune: {line}", markup=False, highlight=False, soft_wrap=True)


def track(items: Iterable[T], *, label: str, total: int, done: int = 0) -> Generator[T, None, None]:
    """Yield ``items`` while a bar with an ETA shows how many are done.

    Args:
        items: what to iterate over.
        label: what is being done, in a few words.
        total: how many items there are, those already ``done`` included.
        done: how many were finished before (a resumed run).
    """
    global _active
    outer = _active
    display = outer or _new_display()
    if display.disable:
        # An older rich (14) ends even a bar that is not drawn with a new line.
        yield from items
        return
    if outer is None:
        display.start()
        _active = display
    task = display.add_task(label, total=total, completed=done)
    try:
        for item in items:
            yield item
            display.advance(task)
    finally:
        display.remove_task(task)
        if outer is None:
            _active = None
            display.stop()
