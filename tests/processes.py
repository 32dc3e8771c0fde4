"""Processes for a test, alone or under torchrun's own agent; all are forked.

They are forked from one process that has imported everything and done nothing, as a new process would
import for many times as long as the tests themselves take, and a fork of the tests' own process would
inherit the locks of its threads.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from coprune.distributed.launch import joined

T = TypeVar("T")

multiprocessing.set_forkserver_preload(["processes", "preloaded"])


def forked() -> BaseContext:
    """Where processes come from; the process that they are forked from runs."""
    # It finds what it is to import by its environment alone (Python's issue 117378).
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with patch.dict(os.environ, PYTHONPATH=here):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


class Started:
    """A process with what tests use of ``subprocess.Popen``: forked, so that it need not import torch.

    Args:
        action: a function of a module.
        given: its arguments.
    """

    def __init__(self, action: Callable[..., object], *given: object) -> None:
        self._logs = tempfile.TemporaryDirectory()
        self._process = forked().Process(target=_logged, args=(self._logs.name, action, given))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Exit code; of a signal its negative number; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See :attr:`returncode`."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._process.join(timeout)
        assert self.returncode is not None, "it runs on"

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its end, and what it printed."""
        self.wait(timeout)
        out, err = ((Path(self._logs.name) / name).read_text() for name in ("out", "err"))
        return out, err

    def kill(self) -> None:
        """End it, if it still runs."""
        self._process.kill()
        self._process.join()


def started(*words: object) -> Started:
    """``coprune WORDS``, begun."""
    return Started(_main, tuple(map(str, words)), None)


def finished(*words: object) -> tuple[str, str]:
    """``coprune WORDS``, done without an error; what it printed."""
    return _checked(started(*words))


def done(action: Callable[..., object], *given: object) -> tuple[str, str]:
    """A function of a module, done in a process of its own; what it printed."""
    return _checked(Started(action, *given))


def script(path: Path, *words: object) -> None:
    """A script with arguments, run without an error in the folder above its own."""
    _checked(Started(run_script, path, tuple(map(str, words))))


def _checked(process: Started) -> tuple[str, str]:
    try:
        printed = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0, printed[1]
    return printed


def _logged(logs: str, action: Callable[..., object], given: tuple[object, ...]) -> None:
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        with open(Path(logs) / name, "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    _with_one_thread(action, given)


def run_script(path: Path, words: tuple[str, ...]) -> None:
    """A script with arguments, in the folder above its own, as this process."""
    os.chdir(path.parent.parent)
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path), *words]
    runpy.run_path(str(path), run_name="__main__")


def launch(count: int, action: Callable[..., T], *given: Any, logs: Path | None = None) -> list[T]:
    """What an action hands back in each of several processes, by rank.

    Args:
        count: of processes.
        action: a function of a module.
        given: its arguments.
        logs: a folder for what they print; without one it is lost.

    Raises:
        ChildFailedError: one of them ended with an error; ``failures`` says how each did.
    """
    with tempfile.TemporaryDirectory() as lost:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=f"test-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.05,
            start_method=forked().get_start_method(),
            logs_specs=DefaultLogsSpecs(log_dir=str(logs or lost), redirects=Std.ALL),
        )
        found = elastic_launch(config, _with_one_thread)(action, given)
    return [found[rank] for rank in range(count)]


def together(count: int, action: Callable[..., T], *given: Any) -> list[T]:
    """The same for an action of processes that have joined."""
    return launch(count, _joined, action, given)


class Printed(NamedTuple):
    """What the processes of a command printed, all together."""

    out: str
    err: str


def typed(count: int, *words: object, logs: Path, before: Callable[[], None] | None = None) -> list[int]:
    """``coprune WORDS`` under torchrun with so many processes; their exit codes.

    Args:
        count: of processes.
        words: of the command line.
        logs: a folder for :func:`printed`.
        before: done in every process first; a function of a module.
    """
    return launch(count, _main, tuple(map(str, words)), before, logs=logs)


def printed(logs: Path) -> Printed:
    """What was printed into a folder of logs."""
    texts = [
        [file.read_text() for file in sorted(logs.rglob(f"{kind}.log"))] for kind in ("stdout", "stderr")
    ]
    return Printed(*("".join(parts) for parts in texts))


def _with_one_thread(action: Callable[..., T], given: tuple[Any, ...]) -> T:
    assert "preloaded" in sys.modules, "every process would import for seconds"
    torch.set_num_threads(1)
    return action(*given)


def _joined(action: Callable[..., T], given: tuple[Any, ...]) -> T:
    with joined():
        return action(*given)


def _main(words: tuple[str, ...], before: Callable[[], None] | None) -> int:
    from coprune.cli.main import main

    sys.argv = ["coprune", *words]
    if before is not None:
        before()
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    return 0
