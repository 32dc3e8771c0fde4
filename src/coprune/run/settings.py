"""Everything a pruning run can be asked for, model and data apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coprune.errors import UserError
from coprune.recover import How
from coprune.run.steps import UnitWord, kinds_asked
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
        allocation: how a budget is shared out: the same share of every group (``uniform``), in
            ``knee`` proportion, or by ``measured`` sensitivity; ``auto`` is the method's own way.
        schedule: ``oneshot``, or ``layerwise``: select, cut and train layer after layer.
        between: training after each layer of the layerwise schedule.
        recovery: without labels: ``least-squares``, ``reconstruction`` (least squares, then all layers
            together: better and slower), ``channel-least-squares`` (each layer by itself), ``bn`` or
            ``none``; ``auto`` is the method's own, or ``bn`` after a layerwise schedule, which has trained.
        finetune: training at the end; 0 epochs for none.
        units: kinds of units to remove: ``inner`` (or ``channels``), ``coupled``, ``heads``,
            ``neurons``; empty: all but ``coupled`` that the method can choose from. ``keep_heads``
            removes heads only.
        skip: layers to leave alone.
        only: layers whose groups may be pruned, and nothing else; empty: all.
        round_to: groups keep multiples of so many units, or all.
        latency: how to measure it.
        profile: a folder of statistics to reuse.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "complementary"
    options: Mapping[str, Any] = Field(default_factory=dict)
    budget: Budget = Field(default_factory=Budget)
    allocation: Literal["auto", "uniform", "knee", "measured"] = "auto"
    schedule: Literal["oneshot", "layerwise"] = "oneshot"
    between: Recipe = BETWEEN
    recovery: Literal["auto", How] = "auto"
    finetune: Recipe = Recipe(epochs=0)
    units: tuple[UnitWord, ...] = ()
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    round_to: int = Field(1, ge=1)
    latency_batches: tuple[int, ...] = (1, 32)
    latency_seconds: float = 5.0
    profile: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None


def kinds_of(settings: PruneSettings, method: Method) -> tuple[str, ...]:
    """Kinds of groups that a run may remove.

    Raises:
        UserError: none that was asked for and that the method can choose from.
    """
    asked: Sequence[str] = ("heads",) if settings.budget.keep_heads is not None else settings.units
    kinds = kinds_asked(asked)
    found = tuple(kind for kind in method.units if kind in kinds)
    if not found:
        words = dict.fromkeys("channels" if kind in ("inner", "coupled") else kind for kind in method.units)
        can = " and ".join(words)
        raise UserError(f"method '{method.name}' chooses {can}, not {' and '.join(asked)}")
    return found


def resolved(settings: PruneSettings, method: Method) -> PruneSettings:
    """The settings with every ``auto`` replaced by what the method says."""
    layerwise = settings.schedule == "layerwise"
    return settings.model_copy(
        update={
            # Layer after layer there is nothing measured to share out by, and of --keep-units no need to.
            "allocation": "uniform"
            if layerwise or settings.budget.keep_units is not None
            else method.allocation
            if settings.allocation == "auto"
            else settings.allocation,
            "recovery": ("bn" if layerwise else method.recovery)
            if settings.recovery == "auto"
            else settings.recovery,
        }
    )


def check_settings(settings: PruneSettings, method: Method) -> None:
    """Refuse settings that contradict each other or the method.

    Raises:
        UserError: several budgets, a search of a layerwise run, no budget and no knee, an allocation
            that the method cannot give.
    """
    asked = [v for v in settings.budget.model_dump().values() if v is not None]
    if len(asked) > 1:
        raise UserError(
            "give one of --keep-macs, --keep-params, --keep-units, --keep-heads, --latency-ms and "
            "--max-drop, not several"
        )
    kinds_of(settings, method)
    layerwise = settings.schedule == "layerwise"
    if settings.budget.searched and layerwise:
        raise UserError("--max-drop and --latency-ms search one-shot models; leave --schedule layerwise out")
    if not asked and not method.has_knee and (layerwise or not method.knee_of_curve):
        raise UserError(
            f"method '{method.name}' has no knee of its own"
            + (" layer by layer" if method.knee_of_curve else "")
            + "; give --keep-macs, --keep-units or --max-drop"
        )
    if layerwise and settings.allocation not in ("auto", "uniform"):
        raise UserError(
            f"--allocation {settings.allocation} shares out one-shot budgets; leave --schedule layerwise out"
        )
    if settings.budget.keep_units is not None and settings.allocation not in ("auto", "uniform"):
        raise UserError(
            f"--allocation {settings.allocation} shares out MACs, parameters or heads; "
            "--keep-units is a share of every group"
        )
    if settings.budget.keep_heads is not None and settings.allocation == "knee":
        raise UserError("--allocation knee shares out MACs or parameters, not --keep-heads")
    if settings.allocation == "knee" and not method.has_knee:
        raise UserError(
            f"--allocation knee needs a method with a knee, such as cosep; '{method.name}' has none"
        )
    if settings.allocation == "measured" and method.allocation != "measured":
        raise UserError(
            f"--allocation measured needs a method that knows its loss for every size, such as "
            f"complementary; '{method.name}' takes uniform"
        )
