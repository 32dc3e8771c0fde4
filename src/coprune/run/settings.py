"""Everything a pruning run can be asked for, model and data apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coprune.errors import UserError
from coprune.select import Budget, Method
from coprune.training import Recipe

BETWEEN = Recipe(epochs=2, fraction=0.25, lr=0.01, schedule="step", step_epochs=1, step_factor=0.5)
"""CoSeP's fine-tuning after each layer on CIFAR (arXiv 2505.13225)."""


class PruneSettings(BaseModel):
    """Everything that decides what a pruning run does, model and data apart.

    Attributes:
        method: name of the selection method.
        options: the method's own settings.
        budget: what to keep; empty: the method's knee.
        allocation: how a MACs budget is shared out, ``uniform`` or in ``knee`` proportion.
        schedule: ``oneshot``, or ``layerwise``: select, cut and train layer after layer.
        between: training after each layer of the layerwise schedule.
        recovery: without training: ``bn`` or ``none``.
        finetune: training at the end; 0 epochs for none.
        skip: layers to leave alone.
        latency: how to measure it.
        profile: a folder of statistics to reuse.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "cosep"
    options: Mapping[str, Any] = Field(default_factory=dict)
    budget: Budget = Field(default_factory=Budget)
    allocation: Literal["uniform", "knee"] = "uniform"
    schedule: Literal["oneshot", "layerwise"] = "oneshot"
    between: Recipe = BETWEEN
    recovery: Literal["bn", "none"] = "bn"
    finetune: Recipe = Recipe(epochs=0)
    skip: tuple[str, ...] = ()
    latency_batches: tuple[int, ...] = (1, 32)
    latency_seconds: float = 5.0
    profile: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None


def check_settings(settings: PruneSettings, method: Method) -> None:
    """Refuse settings that contradict each other or the method.

    Raises:
        UserError: several budgets, a search of a layerwise run, no budget and no knee.
    """
    asked = [v for v in settings.budget.model_dump().values() if v is not None]
    if len(asked) > 1:
        raise UserError("give one of --keep-macs, --keep-units and --max-drop, not several")
    if settings.budget.max_drop is not None and settings.schedule == "layerwise":
        raise UserError("--max-drop searches one-shot models; leave --schedule layerwise out")
    if not asked and not method.has_knee:
        raise UserError(
            f"method '{method.name}' has no knee of its own; give --keep-macs, --keep-units or --max-drop"
        )
