"""What ``coprune compare`` can be asked for, and what of it cannot be done. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from coprune.bounds import Bounds, Positive, Seed
from coprune.errors import UserError, setting
from coprune.methods.base import Method
from coprune.methods.registry import MethodOptions, find_method, method_settings
from coprune.options import Named, Nested, Options, checked, valid
from coprune.pipeline.jobs import CalibratedJob
from coprune.pipeline.settings import FINETUNE, Machine, Units, Working, finetune_recipe, kinds_asked
from coprune.recovery.registry import RECOVERIES, RECOVERY_WORDS, RecoveryOrNone
from coprune.training.defaults import suited
from coprune.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

KNEE = "knee"

Level = Annotated[float | str, Bounds(0, 1, above=True, words=(KNEE,))]
"""A share to keep, or the knee."""


class Levels(Options, title="What to keep"):
    """The budgets that methods are compared at.

    Attributes:
        keep_macs: shares of the MACs and/or knee, separated by commas; 0.5 by default.
        keep_heads: instead: shares of all attention heads and/or knee; nothing else goes.
    """

    keep_macs: tuple[Level, ...] | None = None
    keep_heads: tuple[Level, ...] | None = None


def _levels(given: dict[str, Any], _: Mapping[str, Any]) -> tuple[float | str, ...]:
    levels = valid(Levels, given)
    if levels.keep_macs is not None and levels.keep_heads is not None:
        raise UserError(f"give {setting('keep_macs')} or {setting('keep_heads')}, not both")
    found = levels.keep_macs if levels.keep_heads is None else levels.keep_heads
    return (0.5,) if found is None else found


def _budget_of(given: dict[str, Any], _: Mapping[str, Any]) -> str:
    return "heads" if "keep_heads" in given else "macs"


def _recipe(given: dict[str, Any], values: Mapping[str, Any]) -> Recipe:
    rates = checked("finetune_lr", values.get("finetune_lr"), tuple[Positive, ...] | None)
    if rates == ():
        raise UserError(
            f"{setting('finetune_lr')} names no learning rate; e.g. {setting('finetune_lr', 0.02)}"
        )
    return finetune_recipe({**given, "lr": rates[0]} if rates else given, values)


_FINETUNE = replace(FINETUNE, fields=tuple(of for of in FINETUNE.fields if of != "lr"), make=_recipe)


class CompareJob(CalibratedJob, Units, Working, Machine, title="Comparison"):
    """Everything ``coprune compare`` can be asked for, but where to write.

    The first method with a knee decides the MACs of the ``knee`` budget. With a budget of heads nothing else
    is removed. Seeds are counted from ``seed``; each draws its own calibration samples and training order.
    Learning rates are tried with the first seed.

    Attributes:
        methods: methods, separated by commas.
        seeds: how many seeds.
        recoveries: {recoveries}; separated by commas.
        allocations: share out a budget: ``auto`` (each method's own way); ``uniform``, ``measured`` for all;
            separated by commas.
        finetune_rates: highest learning rate; of several, each method takes its best on calibration data.
    """

    methods: tuple[str, ...] = ("complementary", "cosep", "random", "magnitude", "bn_scale", "fpgm", "taylor")
    budgets: Annotated[tuple[Level, ...], Nested(Levels, make=_levels)]
    budget_of: Annotated[Literal["macs", "heads"], Nested(Levels, make=_budget_of)] = "macs"
    options: Annotated[Mapping[str, Any], MethodOptions()] = {}
    seed: Seed = 0
    seeds: Annotated[int, Bounds(1, 1000)] = 3
    help_words = RECOVERY_WORDS
    recoveries: Annotated[tuple[RecoveryOrNone, ...], Named("recovery")] = ("least-squares",)
    allocations: Annotated[tuple[Literal["auto", "uniform", "measured"], ...], Named("allocation")] = (
        "auto",
    )
    finetune: Annotated[Recipe, _FINETUNE] = Recipe(epochs=0)
    finetune_rates: Annotated[tuple[Positive, ...], Named("finetune_lr")] = ()

    @property
    def trains(self) -> bool:
        """See :attr:`coprune.pipeline.jobs.CalibratedJob.trains`."""
        return self.finetune.epochs > 0

    def check(self, out: Path, *, resume: bool, overwrite: bool) -> None:
        """See :meth:`coprune.pipeline.jobs.Job.check`."""
        check_job(self)
        super().check(out, resume=resume, overwrite=overwrite)


def methods_of(job: CompareJob) -> dict[str, tuple[Method, Options]]:
    """Each method with its settings.

    Raises:
        UserError: an unknown method, or an option that is of none of them.
    """
    methods = {name: find_method(name) for name in job.methods}
    known = {field for m in methods.values() for field in m.settings.model_fields}
    for option in job.options:
        if option not in known:
            raise UserError(f"{setting(option)} is no option of {', '.join(job.methods)}")
    return {
        name: (m, method_settings(m, {k: v for k, v in job.options.items() if k in m.settings.model_fields}))
        for name, m in methods.items()
    }


def check_job(job: CompareJob) -> None:
    """Refuse what cannot be compared, before anything is loaded.

    Raises:
        UserError: unknown names, budgets outside (0, 1], a knee that no method has.
    """
    methods = methods_of(job)
    budget = f"keep_{job.budget_of}"
    for option, names, known in (
        ("methods", job.methods, "e.g. cosep,magnitude,random"),
        (budget, job.budgets, "e.g. 0.5,0.25"),
        ("recovery", job.recoveries, f"known: {', '.join(RECOVERIES)}"),
        ("allocation", job.allocations, "e.g. uniform,measured"),
    ):
        if not names:
            raise UserError(f"{setting(option)} names none; {known}")
        if len(set(names)) < len(names):
            raise UserError(f"{setting(option, tuple(map(str, names)))} names one twice")
    check_knee(job, methods)
    common_kinds(job, methods)


def check_knee(job: CompareJob, methods: Mapping[str, tuple[Method, Options]]) -> None:
    """Refuse the knee as a budget where no method has one."""
    if KNEE in job.budgets and not any(method.has_knee for method, _ in methods.values()):
        asked = setting(f"keep_{job.budget_of}", KNEE)
        raise UserError(f"{asked} needs a method with a knee, such as cosep")


def trained_as_suits(job: CompareJob, model: nn.Module) -> CompareJob:
    """The job with what nobody said of training as suits the model."""
    recipe = suited(job.finetune, model, trained=True)
    return job.model_copy(update={"finetune": recipe, "finetune_rates": job.finetune_rates or (recipe.lr,)})


def common_kinds(job: CompareJob, methods: Mapping[str, tuple[Method, Options]]) -> tuple[str, ...]:
    """What all of the methods can remove, so that they are compared on the same units."""
    asked = kinds_asked(("heads",) if job.budget_of == "heads" else job.units)
    found = tuple(kind for kind in asked if kind in offered_kinds(job, methods))
    if not found:
        heads = setting("keep_heads")
        why = f" among {', '.join(asked)}" if job.units else f"; with cahp, give {heads}"
        why = f" with {heads}" if job.budget_of == "heads" else why
        raise UserError(f"{', '.join(methods)} have no kind of units in common{why}")
    return found


def offered_kinds(job: CompareJob, methods: Mapping[str, tuple[Method, Options]]) -> tuple[str, ...]:
    """What all of the methods could be asked to remove; of a budget of heads only they."""
    units = [method.units for method, _ in methods.values()]
    kinds = ("heads",) if job.budget_of == "heads" else units[0]
    return tuple(kind for kind in kinds if all(kind in of for of in units))
