"""Which channels go together where values meet: one by one, or in sums of products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coprune.groups.labelled import Labelled
from coprune.groups.labels import FACTORS, blank, compact
from coprune.skipped import SkipCode, because


def value_by_value(
    values: Labelled, name: str, given: list[Tensor], labels: list[Tensor], made: list[Tensor]
) -> None:
    """Value by value, as the shapes say; what is neither cannot be followed."""
    try:
        shape = torch.broadcast_shapes(*(t.shape for t in given))
    except RuntimeError:
        shape = torch.Size([-1])
    if all(tensor.shape == shape for tensor in made):
        met = values.ties.meet(labels, shape, gated=name.rstrip("_") in FACTORS or name in FACTORS)
        for tensor in made:
            values.give(tensor, met)
        return
    why = because(SkipCode.NOT_FOLLOWED, cause=f"'{name}'")
    fixed = values.fixed(why)
    for part in labels:
        values.refuse(part, why)
    for tensor in made:
        values.give(tensor, blank(tensor.shape, fixed))


def product(
    values: Labelled,
    name: str,
    args: tuple[Any, ...],
    named: dict[str, Any],
    given: list[Tensor],
    labels: list[Tensor],
    made: Tensor,
) -> Tensor:
    """Sums of products: what is summed over goes together."""
    shape, along = made.shape, values.ties.along
    if name == "einsum" and isinstance(args[0], str) and "->" in args[0] and "." not in args[0]:
        operands, _, out = args[0].replace(" ", "").partition("->")
        parts = []
        for letters, part in zip(operands.split(","), labels, strict=True):
            one = along(part, [d for d, letter in enumerate(letters) if letter not in out])
            kept = [letter for letter in letters if letter in out]
            one = one.reshape([n for n, letter in zip(one.shape, letters, strict=True) if letter in out])
            order = sorted(kept, key=out.index)
            one = one.permute([kept.index(letter) for letter in order])
            sizes = iter(one.shape)
            parts.append(compact(one.reshape([next(sizes) if letter in kept else 1 for letter in out])))
        return values.ties.meet(parts, shape)
    if name == "__rmatmul__":
        labels = labels[::-1]
    if name in ("matmul", "__matmul__", "__rmatmul__", "bmm", "mm") and min(x.ndim for x in labels) > 1:
        left, right = along(labels[0], [labels[0].ndim - 1]), along(labels[1], [labels[1].ndim - 2])
        return values.ties.meet([left, right], shape)
    if name == "scaled_dot_product_attention":
        query, key = (along(part, [part.ndim - 1]) for part in labels[:2])
        key = along(key, [key.ndim - 2])
        value = along(labels[2], [labels[2].ndim - 2])
        return values.ties.meet([query, key, value], shape)
    if name == "linear" and labels[1].ndim == 2:
        read = along(labels[0], [labels[0].ndim - 1])
        weight = along(labels[1], [1]).reshape(-1)
        return values.ties.meet([read, weight, *labels[2:]], shape)
    value_by_value(values, name, given, labels, [made])
    return values.labels(made)
