"""Whether a configuration of 🤗 transformers can say the sizes of a pruned model, and which one does.

A configuration has one number for all layers: of feed-forward neurons, of heads, of key/value heads. Where all
layers keep the same number it is set, and a model is built from it (without memory) to see that it has the
shapes and the counts of the pruned one; then ``from_pretrained`` opens what was saved.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from coprune.compat import transformers as compat
from coprune.compat.transformers import HEAD_COUNTS, HEAD_SIZES, WIDTHS
from coprune.errors import setting

CHANGED = "_coprune_full_config"
"""Where a model keeps what :func:`adopt` changed."""


@dataclass(frozen=True)
class Fit:
    """How a configuration is made to say the sizes.

    Attributes:
        works: whether one can.
        changes: part and key of the configuration → the new value; ``""`` is the configuration itself.
    """

    works: bool
    changes: dict[tuple[str, str], int] = field(default_factory=dict)


def fitted(model: Any) -> Fit:
    """What to change in the configuration of a model of transformers; the model is left as it is."""
    full = compat.skeleton(type(model), model.config)
    if full is None:
        return Fit(False)
    if _alike(full, model):
        return Fit(True)
    changes = dict(_changes(model, full))
    config = changed(model.config, changes)
    made = compat.skeleton(type(model), config) if changes else None
    return Fit(True, changes) if made is not None and _alike(made, model) else Fit(False)


def changed(config: Any, changes: dict[tuple[str, str], Any]) -> Any:
    """A copy of a configuration with other values."""
    made = copy.deepcopy(config)
    for (part, key), value in changes.items():
        if value is None and key in HEAD_SIZES:  # was not there
            vars(compat.parts(made)[part]).pop(key, None)
        else:
            setattr(compat.parts(made)[part], key, value)
    return made


def adopt(model: Any) -> bool:
    """Let a pruned model's own configuration say its sizes, where it can; changed in place.

    Returns:
        Whether it can: ``save_pretrained``, ``from_pretrained`` and caches of a fixed size go by it.
    """
    fit = fitted(model)
    parts = compat.parts(model.config)
    before = {place: getattr(parts[place[0]], place[1], None) for place in fit.changes}
    for (part, key), value in fit.changes.items():
        setattr(parts[part], key, value)
    if before:
        vars(model)[CHANGED] = before | full_of(model)
    return fit.works


def opened_by(model: Any) -> str:
    """What opens the run folder of a pruned model, whose configuration it becomes (:func:`adopt`), in words."""
    if adopt(model):
        return "transformers' own from_pretrained opens the run folder, too: all layers have the same sizes"
    return (
        f"coprune.load opens the run folder, transformers' own from_pretrained does not: a configuration of "
        f"{model.config.model_type} has one number of neurons and of heads for all layers, and some derive the "
        f"heads from the width; {setting('uniform')} keeps as many in all layers, "
        f"{setting('units', 'neurons')} leaves the heads"
    )


def full_of(model: nn.Module) -> dict[tuple[str, str], Any]:
    """What :func:`adopt` changed, with the values before."""
    return getattr(model, CHANGED, {})


def _changes(model: Any, full: nn.Module) -> Iterator[tuple[tuple[str, str], int]]:
    """Values of the configuration that are sizes which all layers that have them now have smaller."""
    was = full.state_dict()
    pairs = {
        name: {(old, new) for old, new in zip(was[name].shape, now.shape, strict=False) if old != new}
        for name, now in model.state_dict().items()
        if name in was
    }
    for part, config in compat.parts(model.config).items():
        homes = [n for n, m in model.named_modules() if part and getattr(m, "config", None) is config]
        inside = {n: p for n, p in pairs.items() if not part or n.startswith(tuple(f"{h}." for h in homes))}
        for key in (*WIDTHS, *HEAD_COUNTS):
            value = getattr(config, key, None)
            if key == "n_inner" and value is None:  # GPT-2's own choice
                value = 4 * config.n_embd if hasattr(config, "n_embd") else None
            if not isinstance(value, int) or key in getattr(config, "attribute_map", {}):
                continue
            each = 1 if key in WIDTHS else _head_size(config)
            word = key.partition("_")[0]
            side = {n: p for n, p in inside.items() if word not in ("encoder", "decoder") or word in n}
            found = {new for one in side.values() for old, new in one if old == value * each}
            if len(found) == 1 and min(found) % each == 0:
                yield (part, key), min(found) // each
                if key in HEAD_COUNTS and not hasattr(config, "d_kv"):
                    yield (part, "head_dim"), each


def _head_size(config: Any) -> int:
    sizes = (getattr(config, key, None) for key in HEAD_SIZES)
    width = int(getattr(config, "hidden_size", 0) or getattr(config, "d_model", 0))
    heads = next((getattr(config, key) for key in HEAD_COUNTS if getattr(config, key, None)), 1)
    return next((size for size in sizes if size), 0) or max(1, width // heads)


def _alike(made: nn.Module, model: nn.Module) -> bool:
    """Whether two models have the same tensors, and modules that count and scale alike."""
    for of in (lambda m: m.state_dict().items(), lambda m: m.named_buffers()):
        if {n: t.shape for n, t in of(made)} != {n: t.shape for n, t in of(model)}:
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
