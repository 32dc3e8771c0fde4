"""Several actions side by side, each up to its next stop, of which only one runs at a time.

A forward pass cannot be left in the middle and taken up again, but a thread that is in one can wait. The
threads take turns: nothing runs at the same time, and everything happens in the same order each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch


class _EndedError(Exception):
    """Ends an action because another one failed."""


class Lockstep:
    """Runs an action several times side by side.

    Args:
        count: how many times, at least once.
    """

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._going = list(range(count))  # the one that runs first, then those whose turn comes
        self._error: BaseException | None = None

    @property
    def turn(self) -> int:
        """Number of the one that runs."""
        return self._going[0]

    def run(self, action: Callable[[int], None]) -> None:
        """Call ``action`` with each number; a single one is called in the caller's own thread.

        Raises:
            BaseException: the first that one of them raised; the others are ended at their stops.
        """
        if len(self._going) == 1:
            action(self._going[0])
            return
        gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        threads = [threading.Thread(target=self._one, args=(action, i, gpu)) for i in self._going]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:  # an interrupt: the threads must not go on without us
            self._end(error)
            raise
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Called by the one that runs: comes back when all others have come to their next stop, or end."""
        with self._changed:
            if len(self._going) == 1:
                return
            me = self._going[0]
            self._going.append(self._going.pop(0))
            self._changed.notify_all()
            self._wait(me)

    def _wait(self, me: int) -> None:
        self._changed.wait_for(lambda: self._error is not None or self._going[0] == me)
        if self._error is not None:
            raise _EndedError

    def _end(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _one(self, action: Callable[[int], None], me: int, gpu: int | None) -> None:
        if gpu is not None:
            torch.cuda.set_device(gpu)  # of a thread; a new one has the first
        try:
            with self._changed:
                self._wait(me)
            action(me)
        except _EndedError:
            pass
        except BaseException as error:  # handed to the caller's thread
            self._end(error)
        finally:
            with self._changed:
                self._going.remove(me)
                self._changed.notify_all()
