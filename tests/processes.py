"""Several processes for a test: torchrun's own agent, with processes that are forked.

A fork has imported everything already, which takes a new process many times as long as the tests themselves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from accelerate.state import AcceleratorState
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from coprune.ranks.join import joined

T = TypeVar("T")


def launch(count: int, action: Callable[..., T], *given: Any) -> list[T]:
    """What an action hands back in each of several processes, by rank.

    Raises:
        ChildFailedError: one of them ended with an error; ``failures`` says how each did.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"test-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.05,
        start_method="fork",
    )
    found = elastic_launch(config, _forked)(action, given)
    return [found[rank] for rank in range(count)]


def together(count: int, action: Callable[..., T], *given: Any) -> list[T]:
    """The same for an action of processes that have joined."""
    return launch(count, _joined, action, given)


def typed(count: int, *words: object) -> list[int]:
    """``coprune WORDS`` under torchrun with so many processes; their exit codes."""
    return launch(count, _main, words)


def _forked(action: Callable[..., T], given: tuple[Any, ...]) -> T:
    AcceleratorState._reset_state(reset_partial_state=True)  # it belongs to the process that was forked
    return action(*given)


def _joined(action: Callable[..., T], given: tuple[Any, ...]) -> T:
    with joined():
        return action(*given)


def _main(words: tuple[object, ...]) -> int:
    from coprune.cli.main import main

    sys.argv = ["coprune", *map(str, words)]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
