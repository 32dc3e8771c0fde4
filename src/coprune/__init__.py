"""Complementary pruning for PyTorch: keep the channels that say different things.

    import coprune
    outcome = coprune.prune(model, train=loader, eval=test_loader, keep_macs=0.5)
    outcome.save("run/")
    model = coprune.load("run/")

Names are imported when they are first used, so that ``coprune --help`` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coprune.lazy import exports

if TYPE_CHECKING:
    from coprune.api import prune, recover_model
    from coprune.data import load_data
    from coprune.errors import UserError
    from coprune.plan import Plan
    from coprune.result import Result
    from coprune.store import load, open_model
    from coprune.surgery import apply_plan
    from coprune.task import Task
    from coprune.tasks.metrics import Metric

__all__ = [
    "Metric",
    "Plan",
    "Result",
    "Task",
    "UserError",
    "apply_plan",
    "load",
    "load_data",
    "open_model",
    "prune",
    "recover_model",
]

_exported = exports(__name__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from coprune.pipeline.environment import versions

        return versions()["coprune"]
    return _exported(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__")), "__version__"])
