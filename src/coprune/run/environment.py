"""Device, threads and versions: what a result depends on besides its inputs."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from coprune.errors import UserError

_NAMED = ("coprune", "torch", "torch-pruning", "kmedoids", "kneed", "scikit-learn", "accelerate", "numpy")


def pick_device(asked: str) -> str:
    """``auto`` → ``cuda`` when there is one, else ``cpu``.

    Raises:
        UserError: an unknown device, or ``cuda`` on a machine without.
    """
    if asked not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {asked}: known are auto, cpu, cuda")
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UserError("--device cuda: no CUDA device here; use auto or cpu")
    return "cuda" if available and asked != "cpu" else "cpu"


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
