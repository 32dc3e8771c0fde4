"""Which channel every value inside a network is of: labels that pass through operations as values do.

A tensor's labels are a tensor of its shape. What moves values (a view, a split, a concatenation) moves labels
alike, so it is run on them; where values meet one by one, their channels go together; what is computed over
several values (a mean, a softmax, a product) ties the channels that it is computed over.

Labels are float64, in which every operation runs and whole numbers are exact: ``c ≥ 0`` is channel ``c`` of
all that are known; :data:`NONE`: no channel (a constant, padding); below: values of a width that cannot
change, for a reason that the number stands for. Axes along which nothing differs have stride 0.

Shapes: ``D`` axes of a tensor, ``E`` pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NONE = -1.0


def _names(*lines: str) -> frozenset[str]:
    return frozenset(name for line in lines for name in line.split())


MOVES = _names(
    "view reshape permute transpose swapaxes swapdims movedim moveaxis flatten unflatten squeeze unsqueeze",
    "ravel expand broadcast_to view_as reshape_as expand_as chunk tensor_split split split_with_sizes hsplit",
    "vsplit unbind narrow select __getitem__ index_select take_along_dim gather cat concat concatenate stack",
    "hstack vstack dstack column_stack row_stack roll flip fliplr flipud rot90 repeat tile repeat_interleave",
    "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle t adjoint pad unfold diagonal",
    "masked_select atleast_1d atleast_2d atleast_3d T mT H mH",
)
"""Functions that put values elsewhere and compute nothing."""

POOLS = {
    **{f"{kind}_pool{n}d{more}": n for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg")
       for n in (1, 2, 3) for more in ("", "_with_indices")},
    **dict.fromkeys(_names("interpolate upsample upsample_nearest upsample_bilinear grid_sample"), 0),
}  # fmt: skip
"""Functions that compute over places: name → how many last axes; 0: all but two."""

REDUCTIONS = _names(
    "mean sum amax amin max min prod std var var_mean std_mean norm vector_norm linalg_vector_norm logsumexp",
    "argmax argmin any all median nanmean nansum count_nonzero aminmax linalg_norm quantile mode",
)
"""Functions over some axes, which are gone afterwards or of length 1."""

ALONG = {
    **dict.fromkeys(_names("softmax log_softmax softmin gumbel_softmax cumsum cumprod"), -1),
    **dict.fromkeys(_names("sort argsort topk cummax cummin"), -1),
    **dict.fromkeys(_names("normalize local_response_norm"), 1),
}
"""Functions of values along one axis: name → which, where it is not said."""

FACTORS = _names("mul __mul__ __rmul__ __imul__ multiply div __truediv__ __itruediv__ divide true_divide")
"""Functions whose values are 0 where one factor is: what makes it is no sum's, and serves one reader."""

PRODUCTS = {
    **dict.fromkeys(_names("matmul __matmul__ bmm mm"), "...ik,...kj->...ij"),
    "__rmatmul__": "...kj,...ik->...ij",
    "linear": "...k,ok,o->...o",
    "scaled_dot_product_attention": "...ld,...sd,...se->...le",
}
"""Sums of products: name → which axes meet, as ``einsum`` says it, which is given its own."""


@dataclass
class Ties:
    """What was found to go together, and what cannot go.

    Attributes:
        pairs: channels that go together, ``[E, 2]`` each, and whether it is only because they are multiplied
            or stay as many as one another.
        fixed: channels that meet values of a width that cannot change: ``[E, 2]``, channel and label.
    """

    pairs: list[tuple[Tensor, bool]] = field(default_factory=list)
    fixed: list[Tensor] = field(default_factory=list)

    def tie(self, one: Tensor, other: Tensor, *, gated: bool = False) -> None:
        """Values meet one by one; both of one shape. ``gated``: as factors, or as parts of one size."""
        one, other = torch.broadcast_tensors(core(one), core(other))
        both = torch.stack([one.reshape(-1), other.reshape(-1)], 1)
        both = both[(both[:, 0] != both[:, 1]) & (both != NONE).all(1) & (both >= 0).any(1)]
        if len(both):
            both = both.unique(dim=0)
            channels = (both >= 0).all(1)
            self.pairs.append((both[channels], gated))
            self.fixed.append(both[~channels].sort(1, descending=True).values)

    def along(self, labels: Tensor, axes: Sequence[int]) -> Tensor:
        """What is computed over some axes goes together; one label for all of it, the axes of length 1."""
        first = labels
        for axis in axes:
            first = first.narrow(axis, 0, 1) if first.shape[axis] else first
        if any(varies(labels, axis) for axis in axes):
            self.tie(labels, first.expand(labels.shape))
            # A channel stands for what is no channel.
            first = labels.amax(tuple(axes), keepdim=True) if first.numel() else first
        return first

    def meet(self, parts: Sequence[Tensor], shape: Sequence[int], *, gated: bool = False) -> Tensor:
        """Labels of what is computed value by value of tensors that are broadcast to one shape.

        Args:
            parts: labels of the tensors.
            shape: of the result.
            gated: whether the values are multiplied.
        """
        wide = [part.expand(shape) for part in parts]
        differ = [{d for d in range(len(shape)) if varies(w, d)} for w in wide]
        found: Tensor | None = None
        for at, (part, labels) in enumerate(zip(parts, wide, strict=True)):
            sizes = (*(1 for _ in shape[part.ndim :]), *part.shape)
            spread = {d for d, (own, size) in enumerate(zip(sizes, shape, strict=True)) if own < size}
            others = set().union(*(d for i, d in enumerate(differ) if i != at))
            if spread & others and not differ[at] and len(parts) > 1:
                continue  # one value for all channels
            if found is None:
                found = labels
                continue
            self.tie(found, labels, gated=gated)
            one, other = torch.broadcast_tensors(core(found), core(labels))
            found = torch.where(one >= 0, one, torch.where(other >= 0, other, torch.minimum(one, other)))
            found = compact(found).expand(shape)
        return blank(shape) if found is None else found


def blank(shape: Sequence[int], label: float = NONE) -> Tensor:
    """One label for all values."""
    return torch.full((), label, dtype=torch.float64).expand(tuple(shape))


def varies(labels: Tensor, axis: int) -> bool:
    """Whether labels differ along an axis; those that :func:`compact` made say so by their stride."""
    return labels.shape[axis] > 1 and labels.stride(axis) != 0


def core(labels: Tensor) -> Tensor:
    """One of all that are the same along an axis."""
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1 and labels.stride(axis) == 0:
            labels = labels.narrow(axis, 0, 1)
    return labels


def compact(labels: Tensor) -> Tensor:
    """The same labels, with stride 0 along axes where nothing differs."""
    shape, labels = labels.shape, core(labels)
    for axis in range(labels.ndim):
        first = labels.narrow(axis, 0, min(1, labels.shape[axis]))
        if labels.shape[axis] > 1 and bool((labels == first).all()):
            labels = first
    return labels.expand(shape)


def axes_in(args: Sequence[Any], named: dict[str, Any], ndim: int, default: object = None) -> list[int]:
    """The axes that a function is told: ``dim=1``, or the first number behind the tensor; else all."""
    told = named.get("dim", named.get("axis", default))
    if told is default:
        numbers = (a for a in args[1:] if isinstance(a, int | tuple | list) and not isinstance(a, bool))
        told = next(numbers, default)
    if told is None or told == ():
        return list(range(ndim))
    return [int(axis) % max(1, ndim) for axis in (told if isinstance(told, tuple | list) else (told,))]
