"""Complementary pruning for PyTorch: keep the channels that say different things.

    import coprune
    outcome = coprune.prune(model, train=loader, eval=test_loader, keep_macs=0.5)
    outcome.save("run/")
    model = coprune.load("run/")

Names are imported when they are first used, so that ``coprune --help`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coprune.api import prune, recover_model
    from coprune.data import load_data
    from coprune.errors import UserError
    from coprune.plan import Plan
    from coprune.result import Result
    from coprune.store import load, open_model
    from coprune.surgery import apply_plan

_HOMES = {
    "prune": "coprune.api",
    "recover_model": "coprune.api",
    "load": "coprune.store",
    "open_model": "coprune.store",
    "load_data": "coprune.data",
    "apply_plan": "coprune.surgery",
    "Plan": "coprune.plan",
    "Result": "coprune.result",
    "UserError": "coprune.errors",
}

__all__ = [
    "Plan",
    "Result",
    "UserError",
    "apply_plan",
    "load",
    "load_data",
    "open_model",
    "prune",
    "recover_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("coprune.pipeline.environment").versions()["coprune"]
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'coprune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__")), "__version__"])
