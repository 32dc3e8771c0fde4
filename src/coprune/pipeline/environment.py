"""Device, threads and versions: what a result depends on besides its inputs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from coprune.distributed.world import world
from coprune.errors import UserError, setting

_NAMED = ("coprune", "torch", "torch-pruning", "kmedoids", "kneed", "scikit-learn", "accelerate", "numpy")


def pick_device(asked: str) -> str:
    """``auto`` → ``cuda`` when there is one, else ``cpu``. Each of several processes gets a GPU of its own.

    Raises:
        UserError: an unknown device, ``cuda`` on a machine without, or fewer GPUs than processes.
    """
    kind, _, index = asked.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdecimal()):
        raise UserError(f"{setting('device', asked)}: known are auto, cpu, cuda")
    available = torch.cuda.is_available()
    if kind == "cuda" and not available:
        raise UserError(f"{setting('device', asked)}: no CUDA device here; use auto or cpu")
    if kind == "cuda" and index and (world() > 1 or int(index) != torch.cuda.current_device()):
        raise UserError(
            f"{setting('device', asked)}: the GPU is chosen outside; start with CUDA_VISIBLE_DEVICES={index} "
            f"and {setting('device', 'cuda')}"
        )
    chosen = "cuda" if available and kind != "cpu" else "cpu"
    if chosen == "cuda" and world() > 1:
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise UserError(
                f"more processes on this machine than GPUs ({gpus}); start as many as there are, "
                f"or give {setting('device', 'cpu')}"
            )
        torch.cuda.set_device(local)
    return chosen


def set_up(*, threads: int | None, seed: int) -> None:
    """Fix thread count and torch's global generator (a user's factory may draw from it)."""
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)


def versions() -> dict[str, str]:
    """Versions of everything whose change could change a figure."""
    found = {"python": platform.python_version()}
    for name in _NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found
