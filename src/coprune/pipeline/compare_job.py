"""What ``coprune compare`` can be asked for, and what of it cannot be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import nn

from coprune.bounds import Block, Bounds, Calibration, Positive, Seed, Threads
from coprune.errors import UserError
from coprune.methods.base import Method
from coprune.methods.registry import find_method, method_settings
from coprune.pipeline.environment import pick_device
from coprune.pipeline.removable import UnitWord, kinds_asked
from coprune.recovery import RECOVERIES
from coprune.training import Recipe
from coprune.training.defaults import suited

KNEE = "knee"


class CompareJob(BaseModel):
    """Everything ``coprune compare`` can be asked for, but where to write.

    Attributes:
        methods: names; the first one with a knee decides the MACs of the ``knee`` budget.
        budget_of: what the budgets are shares of: the ``macs``, or the attention ``heads``, and then
            nothing else is removed.
        options: settings of the methods that have them, by option name.
        budgets: shares of the MACs, or ``knee``.
        seed: the first.
        seeds: how many; seed s draws its own calibration samples and training order.
        recoveries: each row is made once with each of them.
        allocation: ``auto``: each method shares a budget out in its own way. ``uniform``: every group
            keeps the same share, whatever the method: the choices alone are compared.
        finetune: 0 epochs for none.
        finetune_rates: learning rates, all tried with the first seed: each method, budget and recovery
            gets the one with the best calibration accuracy, and keeps it for the other seeds. Empty:
            that of ``finetune``.
        force: go on where figures cannot mean anything.
        units, only, round_to: as for ``coprune prune``, the same for every method.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    data: str
    methods: tuple[str, ...]
    budgets: tuple[float | str, ...]
    budget_of: Literal["macs", "heads"] = "macs"
    options: Mapping[str, Any] = {}
    seed: Seed = 0
    seeds: Annotated[int, Bounds(1, 1000)] = 3
    recoveries: tuple[str, ...] = ("least-squares",)
    allocation: Literal["auto", "uniform"] = "auto"
    finetune: Recipe = Recipe(epochs=0)
    finetune_rates: tuple[Positive, ...] = ()
    weights: str | None = None
    tokenizer: str | None = None
    arguments: Mapping[str, Any] = {}
    calibration: Calibration = 2000
    validation: str | None = None
    trust: bool = False
    force: bool = False
    units: tuple[UnitWord, ...] = ()
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    round_to: Block = 1
    device: str = "auto"
    threads: Threads | None = None


def _settings(job: CompareJob) -> dict[str, tuple[Method, BaseModel]]:
    """Each method with its settings; an option must belong to at least one of them."""
    methods = {name: find_method(name) for name in job.methods}
    known = {field for m in methods.values() for field in m.settings.model_fields}
    for option in job.options:
        if option not in known:
            raise UserError(f"--{option.replace('_', '-')} is no option of {', '.join(job.methods)}")
    return {
        name: (
            method,
            method_settings(
                method, {k: v for k, v in job.options.items() if k in method.settings.model_fields}
            ),
        )
        for name, method in methods.items()
    }


def check_job(job: CompareJob) -> dict[str, tuple[Method, BaseModel]]:
    """Refuse what cannot be compared, before anything is loaded.

    Raises:
        UserError: unknown names, budgets outside (0, 1], a knee that no method has.
    """
    methods = _settings(job)
    if not methods:
        raise UserError("--methods names none; e.g. --methods cosep,magnitude,random")
    if len(methods) < len(job.methods):
        raise UserError("--methods names a method twice")
    for budget in job.budgets:
        if budget == KNEE:
            if not any(m.has_knee for m, _ in methods.values()):
                raise UserError(f"--keep-{job.budget_of} knee needs a method with a knee, such as cosep")
        elif isinstance(budget, str) or not 0 < budget <= 1:
            raise UserError(f"--keep-{job.budget_of} {budget}: shares in (0, 1], or knee")
    if not job.budgets:
        raise UserError(f"--keep-{job.budget_of} names no budget; e.g. --keep-{job.budget_of} 0.5,0.25")
    common_kinds(job, methods)
    for option, names in ((f"--keep-{job.budget_of}", job.budgets), ("--recovery", job.recoveries)):
        if len(set(names)) < len(names):
            raise UserError(f"{option} {','.join(map(str, names))} names one twice")
    if not job.recoveries:
        raise UserError(f"--recovery names none; known: {', '.join(RECOVERIES)}")
    for recovery in job.recoveries:
        if recovery not in RECOVERIES:
            raise UserError(f"--recovery {recovery}: known are {', '.join(RECOVERIES)}")
    if job.seeds < 1:
        raise UserError(f"--seeds {job.seeds}: at least one")
    pick_device(job.device)
    return methods


def trained_as_suits(job: CompareJob, model: nn.Module) -> CompareJob:
    """The job with what nobody said of training as suits the model."""
    recipe = suited(job.finetune, model, trained=True)
    return job.model_copy(update={"finetune": recipe, "finetune_rates": job.finetune_rates or (recipe.lr,)})


def common_kinds(job: CompareJob, methods: Mapping[str, tuple[Method, BaseModel]]) -> tuple[str, ...]:
    """What all of the methods can remove, so that they are compared on the same units."""
    asked = kinds_asked(("heads",) if job.budget_of == "heads" else job.units)
    offered = offered_kinds(job, methods)
    found = tuple(kind for kind in asked if kind in offered)
    if not found:
        raise UserError(
            f"{', '.join(methods)} have no kind of units in common"
            + (
                " with --keep-heads"
                if job.budget_of == "heads"
                else f" among {', '.join(asked)}"
                if job.units
                else "; with cahp, give --keep-heads"
            )
        )
    return found


def offered_kinds(job: CompareJob, methods: Mapping[str, tuple[Method, BaseModel]]) -> tuple[str, ...]:
    """What all of the methods could be asked to remove; of a budget of heads only they."""
    first, *others = (m.units for m, _ in methods.values())
    every = tuple(kind for kind in first if all(kind in units for units in others))
    return tuple(kind for kind in every if kind == "heads") if job.budget_of == "heads" else every
