"""Functions that put values elsewhere: labels move alike, and widths that must stay alike are tied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from coprune.groups.labelled import Labelled
from coprune.groups.labels import compact, varies
from coprune.groups.sizes import Attribute, Follows
from coprune.tracing.calls import Function
from coprune.tracing.forward import mapped, tensors_of


def move(
    values: Labelled,
    name: str,
    function: Function,
    args: tuple[Any, ...],
    named: dict[str, Any],
    made: list[Tensor],
) -> None:
    """The same move with the labels, shifted by one so that padding with zeros is no channel."""
    first = next(iter(tensors_of((args, named))))
    whole = values.labels(first)
    indices = name in ("__getitem__", "index_select", "gather", "take_along_dim", "masked_select")

    def shifted(tensor: Tensor) -> Tensor:
        # What says where, or how many, is no value.
        says = indices or (not tensor.ndim and not tensor.is_floating_point())
        return tensor if says and tensor is not first else values.labels(tensor) + 1.0

    if name == "pad":
        named = {key: value for key, value in named.items() if key != "value"}
        args = args[:3]
    function = Tensor.reshape if name == "view" and not isinstance(args[1], torch.dtype) else function
    moved = function(*mapped(args, shifted), **mapped(named, shifted))
    parts = [compact(part - 1.0) for part in tensors_of(moved)]
    for tensor, part in zip(made, parts, strict=True):
        values.give(tensor, part)
    if name in ("chunk", "tensor_split", "split", "split_with_sizes", "hsplit", "vsplit"):
        _tie_pieces(values, args, named, parts)
    elif name == "__getitem__":
        _tie_slices(values, whole, args[1])
    elif name in ("view", "reshape", "unflatten"):
        values.give(made[0], _tie_regrouped(values, name, whole, args, named, parts[0]))
    elif name in ("narrow", "expand", "repeat"):
        sizes = [n for n in args[1:] if isinstance(n, int)]
        for axis, size in zip(reversed(range(parts[0].ndim)), reversed(sizes), strict=False):
            values.tie_attribute(size, parts[0], axis)


def _tie_pieces(values: Labelled, args: tuple[Any, ...], named: dict[str, Any], parts: list[Tensor]) -> None:
    """Pieces stay as large as one another, or as an attribute says."""
    axis = named.get("dim", args[2] if len(args) > 2 else 0)
    told = next((v for v in (*args[1:2], *named.values()) if isinstance(v, list | tuple | Attribute)), ())
    sizes = [told] * len(parts) if isinstance(told, Attribute) else told
    for size, part in zip(sizes, parts, strict=False):
        values.tie_attribute(size, part, axis)
    said = bool(sizes) and all(isinstance(size, Attribute) for size in sizes)
    if not said and len({part.shape[axis] for part in parts}) == 1:
        for part in parts[1:]:
            values.ties.tie(parts[0], part, gated=True)


def _tie_slices(values: Labelled, labels: Tensor, index: Any) -> None:
    """Equal parts ``x[:, a:b]`` stay as large as one another; ``x[:, :n]`` as an attribute ``n`` says."""
    entries = index if isinstance(index, tuple) else (index,)
    at = next((i for i, e in enumerate(entries) if e is Ellipsis), len(entries))
    missing = labels.ndim - sum(e is not None and e is not Ellipsis for e in entries)
    entries = (*entries[:at], *(slice(None),) * missing, *entries[at + 1 :])
    for axis, entry in enumerate(e for e in entries if e is not None):
        if not isinstance(entry, slice) or axis >= labels.ndim or not varies(labels, axis):
            continue
        size = labels.shape[axis]
        own = [n for n in (entry.start, entry.stop) if isinstance(n, Attribute) and n <= size]
        for bound in own:
            values.tie_attribute(bound, labels.narrow(axis, 0, bound), axis)
        start, stop, step = entry.indices(size)
        width = stop - start
        if step > 1 and size % step == 0:
            values.ties.along(labels.unflatten(axis, (-1, step)), [axis + 1])
        elif not own and 0 < width < size and size % width == start % width == 0:
            values.ties.along(labels.unflatten(axis, (-1, width)), [axis])


def _tie_regrouped(
    values: Labelled, name: str, before: Tensor, args: tuple[Any, ...], named: dict[str, Any], labels: Tensor
) -> Tensor:
    """Where channels are split into several axes, one of these shrinks, and the others stay whole."""
    sizes = args[1:] if len(args) > 1 else tuple(named.values())
    if name == "unflatten":
        told = {**dict(zip(("dim", "sizes"), args[1:], strict=False)), **named}
        axis = told["dim"] % before.ndim
        around = [Follows(n) for n in before.shape]
        sizes = (*around[:axis], *told["sizes"], *around[axis + 1 :])
    elif sizes and isinstance(sizes[0], list | tuple | torch.Size):
        sizes = tuple(sizes[0])
    if len(sizes) != labels.ndim:
        return labels
    wide = [d for d in range(labels.ndim) if varies(labels, d)]
    if len(wide) > sum(varies(before, d) for d in range(before.ndim)):
        free = [d for d in wide if isinstance(sizes[d], Follows) or sizes[d] == -1]
        free = free or [d for d in wide if isinstance(sizes[d], Attribute)] or wide[-1:]
        labels = values.ties.along(labels, [d for d in wide if d != free[0]]).expand(labels.shape)
        wide = free[:1]
    for axis in wide:
        values.tie_attribute(sizes[axis], labels, axis)
    return labels
