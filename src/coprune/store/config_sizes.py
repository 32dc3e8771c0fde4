"""Whether a configuration of 🤗 transformers can say the sizes of a pruned model, and which one does.

A configuration has one number for all layers: of feed-forward neurons, of heads, of key/value heads. Where
all layers keep the same number it is set, and a model is built from it (without memory) to see that it has
the shapes and the counts of the pruned one; then ``from_pretrained`` opens what was saved.

A *place* is a key of a configuration, or ``part.key`` of one inside it: ``text_config.intermediate_size``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from coprune.compat import transformers as compat
from coprune.compat.transformers import HEAD_COUNTS, HEAD_SIZES, WIDTHS
from coprune.errors import setting

FULL = "_coprune_full_config"
"""Where a model keeps what :func:`adopt` changed."""


@dataclass(frozen=True)
class Fit:
    """How a configuration is made to say the sizes.

    Attributes:
        works: whether one can.
        changes: place → the new value.
        before: what :func:`adopt` changed earlier or would change: place → the value of the full model.
    """

    works: bool
    changes: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)


def fitted(model: Any) -> Fit:
    """What to change in the configuration of a model of transformers; the model is left as it is."""
    known = getattr(model, FULL, {})
    full = compat.skeleton(type(model), model.config)
    if full is None or _alike(full, model):
        return Fit(full is not None, before=known)
    changes = dict(_changes(model, full))
    made = compat.skeleton(type(model), changed(model.config, changes)) if changes else None
    if made is None or not _alike(made, model):
        return Fit(False, before=known)
    return Fit(True, changes, {place: _value(model.config, place) for place in changes} | known)


def changed(config: Any, values: Mapping[str, Any]) -> Any:
    """A copy of a configuration with other values."""
    made = copy.deepcopy(config)
    _set(made, values)
    return made


def adopt(model: Any) -> bool:
    """Let a pruned model's own configuration say its sizes, where it can; changed in place.

    ``save_pretrained``, ``from_pretrained`` and caches of a fixed size go by it.
    """
    fit = fitted(model)
    _set(model.config, fit.changes)
    vars(model)[FULL] = fit.before
    return fit.works


def opened_by(model: Any) -> str:
    """What opens the run folder of a model, whose configuration says its sizes from then on, in words."""
    if adopt(model):
        return "transformers' own from_pretrained opens the run folder, too: all layers have the same sizes"
    return (
        "coprune.load opens the run folder, transformers' own from_pretrained does not: its configuration of "
        f"{model.config.model_type} has one number of neurons and one of heads for all layers, or derives "
        f"the heads from the width; {setting('uniform')} keeps as many in all layers, "
        f"{setting('units', 'neurons')} all heads"
    )


def _set(config: Any, values: Mapping[str, Any]) -> None:
    for place, value in values.items():
        part, _, key = place.rpartition(".")
        if value is None and key in HEAD_SIZES:  # it was not there
            vars(compat.parts(config)[part]).pop(key, None)
        else:
            setattr(compat.parts(config)[part], key, value)


def _value(config: Any, place: str) -> Any:
    part, _, key = place.rpartition(".")
    return getattr(compat.parts(config)[part], key, None)


def _changes(model: Any, full: nn.Module) -> Iterator[tuple[str, int]]:
    """Places whose value is a size that all layers that have it have smaller by now, and which size."""
    was = full.state_dict()
    pairs = {
        name: {(old, new) for old, new in zip(was[name].shape, now.shape, strict=False) if old != new}
        for name, now in model.state_dict().items()
        if name in was
    }
    for part, config in compat.parts(model.config).items():
        homes = tuple(f"{n}." for n, m in model.named_modules() if getattr(m, "config", None) is config)
        inside = {n: p for n, p in pairs.items() if not part or n.startswith(homes)}
        aliases, prefix = getattr(config, "attribute_map", {}), f"{part}." * bool(part)
        for key in (*WIDTHS, *HEAD_COUNTS):
            value = None if key in aliases else getattr(config, key, None)
            if key == "n_inner" and value is None:  # four times the width, GPT-2's own choice
                value = 4 * getattr(config, "n_embd", 0)
            if not isinstance(value, int):
                continue
            each = _head_size(config) if key in HEAD_COUNTS else 1
            side = key.partition("_")[0] if key.startswith(("encoder_", "decoder_")) else ""
            found = {new for n, p in inside.items() if side in n for old, new in p if old == value * each}
            if len(found) == 1 and min(found) % each == 0:
                yield prefix + key, min(found) // each
                if key in HEAD_COUNTS and not hasattr(config, "d_kv"):
                    yield prefix + "head_dim", each


def _head_size(config: Any) -> int:
    sizes = (getattr(config, key, None) for key in HEAD_SIZES)
    width = int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 0))
    heads = next((getattr(config, key) for key in HEAD_COUNTS if getattr(config, key, None)), 1)
    return next((size for size in sizes if size), 0) or max(1, width // heads)


def _alike(made: nn.Module, model: nn.Module) -> bool:
    """Whether two models have the same tensors, and modules that count and scale alike."""
    for named in (nn.Module.state_dict, lambda m: dict(m.named_buffers())):
        if {n: t.shape for n, t in named(made).items()} != {n: t.shape for n, t in named(model).items()}:
            return False
    ours = dict(model.named_modules())
    # How wide a block once was, as some note for those who read it, tells nothing of what it computes.
    aside = ("training", *WIDTHS)
    return all(
        value == getattr(ours[name], key, value)
        for name, module in made.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, int | float) and key not in aside and not key.startswith("_")
    )
