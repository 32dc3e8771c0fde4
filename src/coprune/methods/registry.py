"""The registry of selection methods: one line a method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coprune.errors import UserError, near_matches, setting
from coprune.lazy import Registry
from coprune.methods.base import Method
from coprune.options import Option, Options, options_of, valid

METHODS: Registry[Method] = Registry(
    "method",
    {
        "complementary": "coprune.methods.complementary.settings:COMPLEMENTARY",
        "cosep": "coprune.methods.cosep.settings:COSEP",
        "cahp": "coprune.methods.cahp.settings:CAHP",
        "random": "coprune.methods.baselines.entries:RANDOM",
        "magnitude": "coprune.methods.baselines.entries:MAGNITUDE",
        "magnitude_l2": "coprune.methods.baselines.entries:MAGNITUDE_L2",
        "bn_scale": "coprune.methods.baselines.entries:BN_SCALE",
        "fpgm": "coprune.methods.baselines.entries:FPGM",
        "lamp": "coprune.methods.baselines.entries:LAMP",
        "taylor": "coprune.methods.baselines.entries:TAYLOR",
        "hessian": "coprune.methods.baselines.entries:HESSIAN",
        "michel": "coprune.methods.baselines.entries:MICHEL",
        "medoid": "coprune.methods.baselines.entries:MEDOID",
        "last_layers": "coprune.methods.baselines.entries:LAST_LAYERS",
        "head_magnitude": "coprune.methods.baselines.entries:HEAD_MAGNITUDE",
        "wanda_sp": "coprune.methods.baselines.entries:WANDA_SP",
        "flap": "coprune.methods.baselines.entries:FLAP",
    },
)

find_method = METHODS.find

ELSEWHERE = {
    **dict.fromkeys(("pruning_ratio", "ratio", "sparsity", "amount", "keep"), "keep_macs or keep_units"),
    **dict.fromkeys(("criterion", "importance", "algorithm"), "method"),
    **dict.fromkeys(("epochs", "num_epochs"), "finetune_epochs"),
    **dict.fromkeys(("learning_rate", "lr"), "finetune_lr"),
    **dict.fromkeys(("optim", "optimizer"), "finetune_optimizer"),
    **dict.fromkeys(("ignored_layers", "ignore"), "skip"),
    **dict.fromkeys(("train_loader", "dataloader", "loader", "data"), "train"),
    **dict.fromkeys(("eval_loader", "test_loader", "test", "val_loader"), "eval"),
}
"""What other libraries call it → what it is called here."""


class MethodOptions:
    """Metadata of the field that holds a method's own settings: all methods' are options."""

    def options(self) -> dict[str, Option]:
        """See :class:`coprune.options.Spread`; the help says whose each is."""
        found: dict[str, dict[str, list[str]]] = {}
        kinds: dict[str, Any] = {}
        for method in METHODS.values():
            for option in options_of(method.settings).values():
                found.setdefault(option.name, {}).setdefault(option.help, []).append(method.name)
                kinds.setdefault(option.name, option.kind)
        return {
            name: Option(
                name,
                " ".join(f"``{', '.join(owners)}``: {help}" for help, owners in helps.items()),
                kinds[name],
                heading="A method's own",
            )
            for name, helps in found.items()
        }

    def made(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See :class:`coprune.options.Spread`; not yet checked, since the method decides what it takes."""
        return {name: values[name] for name in self.options() if values.get(name) is not None}


def described() -> str:
    """All methods in one sentence, by what they choose."""
    by_kind: dict[str, list[str]] = {"channels": [], "attention heads": [], "all of them": []}
    for name, method in METHODS.items():
        heads, channels = "heads" in method.units, "inner" in method.units
        kind = "channels" if not heads else "all of them" if channels else "attention heads"
        by_kind[kind].append(name)
    return "; ".join(f"for {kind} {', '.join(names)}" for kind, names in by_kind.items())


def check_reads(method: Method, options: Options, *, classes: bool, loss: bool) -> None:
    """Refuse a method that would read what is not there.

    Args:
        method, options, classes, loss: see :meth:`coprune.methods.base.Method.lacking`.

    Raises:
        UserError: names methods that can run, of those that choose the same kinds of units.
    """
    lack = method.lacking(options, classes=classes, loss=loss)
    if lack is None:
        return
    others = [other for other in METHODS.values() if set(other.units) & set(method.units)]
    lacking = {one.name: one.lacking(one.settings(), classes=classes, loss=loss) for one in others}
    able = ", ".join(name for name, missing in lacking.items() if missing is None)
    given = options.model_dump(exclude_defaults=True)
    asked = "".join(f" with {name}={value}" for name, value in given.items())
    raise UserError(f"method '{method.name}'{asked}: {lack.sentence}; these need neither: {able}")


def unknown_argument(name: str, method: Method, arguments: Iterable[str]) -> UserError:
    """The error that refuses a Python argument that is none.

    Args:
        name: what was given.
        method: the one that was asked for; its options count.
        arguments: those that there are.
    """
    if name in ELSEWHERE:
        return UserError(f"{setting(name)}: here it is {ELSEWHERE[name]}")
    near = near_matches(name, {*arguments, *method.settings.model_fields})
    return UserError(f"{setting(name)} is no argument, nor an option of method '{method.name}'; {near}")


def method_settings(method: Method, given: Mapping[str, Any]) -> Options:
    """A method's settings from named options.

    Raises:
        UserError: an option the method does not have, or a value it refuses.
    """
    known = method.settings.model_fields
    for name in given:
        if name not in known:
            owners = [other.name for other in METHODS.values() if name in other.settings.model_fields]
            of = f" but of {', '.join(owners)}" if owners else ""
            has = f"it has {', '.join(map(setting, sorted(known)))}" if known else "it has none"
            raise UserError(f"{setting(name)} is no option of method '{method.name}'{of}; {has}")
    return valid(method.settings, given)
