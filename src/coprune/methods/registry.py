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
                " ".join(f"{', '.join(owners)}: {help}" for help, owners in helps.items()),
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
        by_kind["all of them" if heads and channels else "attention heads" if heads else "channels"].append(
            name
        )
    return "; ".join(f"for {kind} {', '.join(names)}" for kind, names in by_kind.items())


def method_settings(method: Method, given: Mapping[str, Any], *, others: Iterable[str] = ()) -> Options:
    """A method's settings from named options.

    Args:
        method: whose they are.
        given: option → value.
        others: what else could have been meant: arguments that are no method's.

    Raises:
        UserError: an option the method does not have, or a value it refuses.
    """
    known, beside = method.settings.model_fields, set(others)
    for name in given:
        if name in known:
            continue
        if ELSEWHERE.get(name, "").split(" or ")[0] in beside:
            raise UserError(f"{setting(name)}: here it is {ELSEWHERE[name]}")
        owners = [other.name for other in METHODS.values() if name in other.settings.model_fields]
        if owners:
            has = f"; it has {', '.join(map(setting, sorted(known)))}" if known else "; it has none"
            raise UserError(
                f"{setting(name)} is no option of method '{method.name}' but of {', '.join(owners)}{has}"
            )
        raise UserError(
            f"{setting(name)} is no argument, nor an option of method '{method.name}'; "
            f"{near_matches(name, {*known, *beside})}"
        )
    return valid(method.settings, given)
