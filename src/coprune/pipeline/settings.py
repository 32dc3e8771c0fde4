"""Everything a pruning run can be asked for, model and data apart. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from coprune.bounds import Batch, Block, Bounds, Device, Positive, Seed, Threads
from coprune.budget.request import Budget
from coprune.errors import UserError, refused, setting
from coprune.methods.base import Method
from coprune.methods.registry import MethodOptions, find_method, method_settings
from coprune.options import PATH, Nested, Options
from coprune.recovery.registry import RECOVERY_WORDS, RecoveryOrAuto
from coprune.training.defaults import asked, finetuning, suited
from coprune.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

DEFAULT_KINDS = ("inner", "heads", "neurons")
"""Kinds of groups that are removed when nobody says which."""

UnitWord = Literal["channels", "inner", "coupled", "heads", "neurons"]

_COSEP = {
    "epochs": 2, "fraction": 0.25, "lr": 0.01, "schedule": "step", "step_epochs": 1, "step_factor": 0.5
}  # fmt: skip

BETWEEN = asked(_COSEP)
"""CoSeP's fine-tuning after each layer on CIFAR (arXiv 2505.13225)."""

_SHARED = ("batch_size", "distill", "match", "precision")
"""Settings of all trainings of a run, so that their names do not say which."""


def _recipe(of: Nested, make: Callable[..., Recipe], given: Mapping[str, Any]) -> Recipe:
    try:
        return make(**given)
    except ValidationError as cause:
        raise refused(cause, named=of.name) from cause


def _check_unused(of: Nested, given: Mapping[str, Any], *, but: Collection[str], needs: str) -> None:
    for field, value in given.items():
        if field not in but:
            asked = setting(of.name(field), value)
            raise UserError(f"{asked} is of a training that was not asked for; it needs {needs}")


def finetune_recipe(given: Mapping[str, Any], values: Mapping[str, Any]) -> Recipe:
    """The training at the end.

    Args:
        given: of :func:`coprune.training.finetuning`.
        values: all options.

    Raises:
        UserError: a value out of range, or one that nothing is done with.
    """
    recipe = _recipe(FINETUNE, finetuning, given)
    if not recipe.epochs:
        between = ("batch_size", "precision") if values.get("schedule") == "layerwise" else ()
        _check_unused(FINETUNE, given, but=("epochs", *between), needs=setting("finetune_epochs"))
    return recipe


def _between_recipe(given: Mapping[str, Any], values: Mapping[str, Any]) -> Recipe:
    recipe = _recipe(_BETWEEN, partial(asked, _COSEP), given)
    if values.get("schedule") != "layerwise":
        _check_unused(_BETWEEN, given, but=_SHARED, needs=setting("schedule", "layerwise"))
    return recipe


class Finetuning(Recipe, title="Training"):
    """What a training at the end is asked for by.

    Attributes:
        epochs: epochs of training at the end; 0 by default.
        lr: highest learning rate; 0.02 by default, 2e-5 of transformers.
        schedule: ``cosine``, the default, linear, that of transformers, onecycle, step or constant.
    """


class Between(Recipe, title="Training"):
    """What the training after each layer is asked for by.

    Attributes:
        epochs: ``layerwise``: epochs after each layer; 2 by default.
        fraction: ``layerwise``: share of the training samples; 0.25 by default.
        lr: ``layerwise``: learning rate, halved after an epoch; 0.01 by default, 2e-5 of transformers.
    """


_FINETUNED = (
    "epochs", "images", "lr", "optimizer", "schedule", "warmup", "weight_decay", "clip", "unit_clip",
)  # fmt: skip

FINETUNE = Nested(Finetuning, "finetune_", _SHARED, (*_FINETUNED, *_SHARED), finetune_recipe)
"""Of the training at the end."""

_BETWEEN = Nested(
    Between, "between_", _SHARED, ("epochs", "fraction", "lr", "batch_size", "precision"), _between_recipe
)


class Trust(Options, title="The model"):
    """Whose code may run.

    Attributes:
        trust: run the python: factory that the run folder given as --model names.
    """

    trust: bool = False


class Seeded(Options, title="Where it runs"):
    """What is drawn.

    Attributes:
        seed: same seed, same result.
    """

    seed: Seed = 0


class Threading(Options, title="Where it runs"):
    """How many threads.

    Attributes:
        threads: CPU threads; all by default.
    """

    threads: Threads | None = None


class Machine(Threading, title="Where it runs"):
    """What computes.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    device: Device = "auto"


class Working(Options, title="Where it runs"):
    """How much time a result is worth.

    Attributes:
        effort: times the usual samples that a measured allocation looks at, and passes of a reconstruction; 3
            takes about three times as long.
    """

    effort: Annotated[float, Bounds(0.1, 100)] = 1.0


class Units(Options, title="What to remove"):
    """Which units may go.

    Attributes:
        units: what to remove: inner (channels), coupled (channels of residual sums, concatenations, grouped
            layers), heads, neurons, separated by commas; all but coupled by default, and those and the first
            layer's too where a budget is out of reach without them.
        skip: layers to leave alone, separated by commas.
        only: layers whose groups may be pruned, and nothing else; all by default.
        round_to: groups keep multiples of so many units, or all; smaller groups any.
        uniform: groups of a kind and size keep the same number, as 🤗 configurations need it.
        force: go on where figures mean nothing: a base at chance, samples all alike.
    """

    units: tuple[UnitWord, ...] = ()
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    round_to: Block = 1
    uniform: bool = False
    force: bool = False


class Timing(Options, title="Where it runs"):
    """How latency is measured.

    Attributes:
        latency_batches: batch sizes to time, separated by commas.
    """

    latency_batches: tuple[Batch, ...] = (1, 32)


class PruneSettings(Units, Timing, Seeded, Working, Machine, title="Pruning"):
    """Everything that decides what a pruning run does, model and data apart.

    Attributes:
        method: how units are chosen; see above.
        allocation: share out a budget: ``uniform``, ``measured`` (sensitivity), ``knee``; ``auto``: the
            method's.
        schedule: ``oneshot``; or ``layerwise``: select, cut and train layer after layer.
        recovery: without labels: {recoveries}; auto: the method's, or bn after layerwise training.
        profile: statistics of an earlier run to reuse: RUN/profile.
    """

    help_words = RECOVERY_WORDS

    method: str = "complementary"
    options: Annotated[Mapping[str, Any], MethodOptions()] = Field(default_factory=dict)
    budget: Budget = Field(default_factory=Budget)
    allocation: Literal["auto", "uniform", "knee", "measured"] = "auto"
    schedule: Literal["oneshot", "layerwise"] = "oneshot"
    between: Annotated[Recipe, _BETWEEN] = BETWEEN
    recovery: RecoveryOrAuto = "auto"
    finetune: Annotated[Recipe, FINETUNE] = Recipe(epochs=0)
    latency_seconds: Positive = 5.0
    profile: Annotated[str | None, PATH] = None


def kinds_asked(units: Sequence[str]) -> tuple[str, ...]:
    """Kinds of groups that a user's words stand for; without any, the default ones."""
    return tuple("inner" if unit == "channels" else unit for unit in units) or DEFAULT_KINDS


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


def trainings(settings: PruneSettings) -> list[Recipe]:
    """Those that a run is asked for; some may have no epochs."""
    return [settings.finetune, *([settings.between] if settings.schedule == "layerwise" else [])]


def trained_as_suits(settings: PruneSettings, model: nn.Module) -> PruneSettings:
    """The settings with what nobody said of training as suits the model."""
    recipes = {name: suited(getattr(settings, name), model, trained=True) for name in ("finetune", "between")}
    return settings.model_copy(update=recipes)


def resolved(settings: PruneSettings, method: Method) -> PruneSettings:
    """The settings with every ``auto`` replaced by what the method says."""
    layerwise = settings.schedule == "layerwise"
    own = {"allocation": method.allocation, "recovery": "bn" if layerwise else method.recovery}
    found = {name: said for name, said in own.items() if getattr(settings, name) == "auto"}
    if layerwise or settings.budget.keep_units is not None:
        # Layer after layer there is nothing measured to share out by, and of --keep-units no need to.
        found["allocation"] = "uniform"
    return settings.model_copy(update=found)


def check_settings(settings: PruneSettings) -> tuple[Method, Options]:
    """Refuse settings that contradict each other or the method.

    Returns:
        The method that is named there, and its settings.

    Raises:
        UserError: no such method, or options that it has not; several budgets, a search of a layerwise
            run, no budget and no knee, an allocation that the method cannot give.
    """
    method = find_method(settings.method)
    options = method_settings(method, settings.options)
    budget, budgets, allocation = settings.budget, list(Budget.model_fields), settings.allocation
    given = [name for name in budgets if getattr(budget, name) is not None]
    kinds_of(settings, method)
    layerwise, walk = settings.schedule == "layerwise", setting("schedule", "layerwise")
    shares = setting("allocation", allocation)
    uneven = allocation not in ("auto", "uniform")
    rules = {
        f"give one of {', '.join(map(setting, budgets[:-1]))} and {setting(budgets[-1])}, not several": (
            len(given) > 1
        ),
        f"{setting('max_drop')} and {setting('latency_ms')} search one-shot models; leave {walk} out": (
            budget.searched and layerwise
        ),
        f"method '{method.name}' has no knee of its own{' layer by layer' if method.knee_of_curve else ''}; "
        f"give {setting('keep_macs')}, {setting('keep_units')} or {setting('max_drop')}": (
            not given and not method.has_knee and (layerwise or not method.knee_of_curve)
        ),
        f"{setting('profile', settings.profile)} is of the unpruned model; leave {walk} out": (
            layerwise and settings.profile is not None
        ),
        f"{setting('uniform')} needs a budget where groups are cut one after another; give "
        f"{setting('keep_macs')} or leave {walk} out": layerwise and settings.uniform and not given,
        f"{shares} shares out one-shot budgets; leave {walk} out": layerwise and uneven,
        f"{shares} shares out MACs, parameters or heads; {setting('keep_units')} is a share of every group": (
            budget.keep_units is not None and uneven
        ),
        f"{shares} shares out MACs or parameters, not {setting('keep_heads')}": (
            budget.keep_heads is not None and allocation == "knee"
        ),
        f"{shares} needs a method with a knee, such as cosep; '{method.name}' has none": (
            allocation == "knee" and not method.has_knee
        ),
        f"{shares}: '{method.name}' chooses from all groups together and shares out by itself": (
            allocation == "measured" and method.joint
        ),
    }
    for why, broken in rules.items():
        if broken:
            raise UserError(why)
    return method, options
