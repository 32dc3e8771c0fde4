"""Everything a pruning run can be asked for, model and data apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from coprune.bounds import Batch, Block, Positive, Seed, Threads
from coprune.budget.counts import Budget
from coprune.errors import UserError, refused, setting
from coprune.methods.base import Method
from coprune.pipeline.removable import UnitWord, kinds_asked
from coprune.recovery import How
from coprune.training import Recipe, finetuning
from coprune.training.defaults import asked, suited

_COSEP = {
    "epochs": 2, "fraction": 0.25, "lr": 0.01, "schedule": "step", "step_epochs": 1, "step_factor": 0.5
}  # fmt: skip


BETWEEN = asked(_COSEP)
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
        force: go on where the figures cannot mean anything, with a note.
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
    round_to: Block = 1
    latency_batches: tuple[Batch, ...] = (1, 32)
    latency_seconds: Positive = 5.0
    profile: str | None = None
    force: bool = False
    seed: Seed = 0
    device: str = "auto"
    threads: Threads | None = None


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


_SHARED = ("batch_size", "distill", "match", "precision")
"""Settings of all trainings of a run, so that their names do not say which."""


def finetune_recipe(*, layerwise: bool = False, **values: Any) -> Recipe:
    """The training at the end, from what the user gave; messages name what was given.

    Args:
        layerwise: whether there is training between the cuts too.
        values: of :func:`coprune.training.finetuning`; None: not given.

    Raises:
        UserError: a value out of range, or one that nothing is done with.
    """

    def named(field: str) -> str:
        return field if field in _SHARED else f"finetune_{field}"

    try:
        recipe = finetuning(**values)
    except ValidationError as cause:
        raise refused(cause, named=named) from cause
    if not recipe.epochs:
        used = {"epochs"} | ({"batch_size", "precision"} if layerwise else set())
        _check_unused({named(k): v for k, v in values.items() if k not in used}, setting("finetune_epochs"))
    return recipe


def between_recipe(
    *, layerwise: bool, batch_size: Any = None, precision: Any = None, **values: Any
) -> Recipe:
    """The training after each layer, from what the user gave; see :func:`finetune_recipe`.

    Args:
        layerwise: whether it takes place.
        batch_size, precision: of all trainings of the run.
        values: other fields of :class:`~coprune.training.Recipe`; None: not given.

    Raises:
        UserError: a value out of range, or one that nothing is done with.
    """
    try:
        recipe = asked(_COSEP, batch_size=batch_size, precision=precision, **values)
    except ValidationError as cause:
        raise refused(cause, named=lambda f: f if f in _SHARED else f"between_{f}") from cause
    if not layerwise:
        _check_unused({f"between_{k}": v for k, v in values.items()}, setting("schedule", "layerwise"))
    return recipe


def _check_unused(values: Mapping[str, Any], needs: str) -> None:
    for name, value in values.items():
        if value is not None:
            raise UserError(
                f"{setting(name, value)} is of a training that was not asked for; it needs {needs}"
            )


def trainings(settings: PruneSettings) -> list[Recipe]:
    """Those that a run is asked for."""
    between = [settings.between] if settings.schedule == "layerwise" else []
    return [recipe for recipe in (*between, settings.finetune) if recipe.epochs]


def trained_as_suits(settings: PruneSettings, model: nn.Module) -> PruneSettings:
    """The settings with what nobody said of training as suits the model."""
    recipes = {name: suited(getattr(settings, name), model, trained=True) for name in ("finetune", "between")}
    return settings.model_copy(update=recipes)


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
        budgets = list(Budget.model_fields)
        raise UserError(
            f"give one of {', '.join(map(setting, budgets[:-1]))} and {setting(budgets[-1])}, not several"
        )
    kinds_of(settings, method)
    walk = setting("schedule", "layerwise")
    layerwise = settings.schedule == "layerwise"
    if settings.budget.searched and layerwise:
        raise UserError(
            f"{setting('max_drop')} and {setting('latency_ms')} search one-shot models; leave {walk} out"
        )
    if not asked and not method.has_knee and (layerwise or not method.knee_of_curve):
        raise UserError(
            f"method '{method.name}' has no knee of its own"
            + (" layer by layer" if method.knee_of_curve else "")
            + f"; give {setting('keep_macs')}, {setting('keep_units')} or {setting('max_drop')}"
        )
    if layerwise and settings.profile is not None:
        raise UserError(f"{setting('profile', settings.profile)} is of the unpruned model; leave {walk} out")
    if layerwise and settings.allocation not in ("auto", "uniform"):
        raise UserError(
            f"{setting('allocation', settings.allocation)} shares out one-shot budgets; leave {walk} out"
        )
    if settings.budget.keep_units is not None and settings.allocation not in ("auto", "uniform"):
        raise UserError(
            f"{setting('allocation', settings.allocation)} shares out MACs, parameters or heads; "
            f"{setting('keep_units')} is a share of every group"
        )
    if settings.budget.keep_heads is not None and settings.allocation == "knee":
        raise UserError(
            f"{setting('allocation', 'knee')} shares out MACs or parameters, not {setting('keep_heads')}"
        )
    if settings.allocation == "knee" and not method.has_knee:
        raise UserError(
            f"{setting('allocation', 'knee')} needs a method with a knee, such as cosep; "
            f"'{method.name}' has none"
        )
    if settings.allocation == "measured" and method.allocation != "measured":
        raise UserError(
            f"{setting('allocation', 'measured')} needs a method that knows its loss for every size, such as "
            f"complementary; '{method.name}' takes uniform"
        )
