"""Channels that go together, and the groups that they make.

A pass with labels (:mod:`coprune.groups.trace`) says which channel of a layer goes with which of another.
Here these pairs are put together: what hangs together, over any number of layers, is a *unit*; units
that have the same number of channels in the same layers are a *group*. Beyond these pairs, the
channels of one block of a grouped convolution or of a group norm go together, so that all blocks stay
equally large: a unit is then a whole block.

Shapes: ``U`` units, ``S`` channels of a unit on an axis; an axis is one layer's input or output channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from coprune.groups.group import ChannelGroup
from coprune.layers import (
    Side,
    attribute_of,
    channel_count,
    grouping,
    is_channelwise,
    is_convolution,
    is_dense,
    is_grouped,
    is_recurrent,
)
from coprune.plan import Member
from coprune.skipped import Reason

_Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """Input or output channels of one layer, or a bare parameter, with a place among all channels."""

    layer: str
    side: Side
    parameter: str | None
    start: int
    size: int

    @property
    def channels(self) -> _Indices:
        return self.start + np.arange(self.size)


@dataclass
class Pairs:
    """Channels that go together, and channels that cannot go, with the reason."""

    model: nn.Module
    axes: dict[tuple[str, Side, str | None], Axis] = field(default_factory=dict)
    edges: list[_Indices] = field(default_factory=list)
    gates: list[_Indices] = field(default_factory=list)
    refused: list[tuple[_Indices, Reason]] = field(default_factory=list)
    total: int = 0

    def axis(self, layer: str, side: Side, parameter: str | None = None) -> Axis | None:
        """The axis of a layer; None when it has no channels of its own."""
        module = self.model.get_submodule(layer)
        convolves = parameter is None and is_grouped(module)
        blocks = "groups" if convolves else grouping(module)
        if not convolves and not (parameter is None and _makes(module)):
            side = "output"  # One axis: such a layer hands on what it is given, channel by channel.
        key = (layer, side, parameter)
        if key not in self.axes:
            read = self.axis(layer, "input") if convolves and side == "output" else None
            size = channel_count(module, side, parameter)
            if size is None:
                return None
            made = self.axes[key] = Axis(*key, self.total, size)
            self.total += size
            if blocks is not None:
                self._tie_blocks(made, read or made, getattr(module, blocks))
        return self.axes[key]

    def _tie_blocks(self, axis: Axis, to: Axis, blocks: int) -> None:
        """Every channel with the first of its block, on this axis or on another one."""
        block = np.arange(axis.size) // (axis.size // blocks)
        self.tie(axis.channels, to.start + block * (to.size // blocks))

    def tie(self, left: _Indices, right: _Indices, *, gated: bool = False) -> None:
        """Channels that go together, pair by pair; ``gated``: only because they are multiplied."""
        (self.gates if gated else self.edges).append(np.stack([left, right], 1))

    def refuse(self, channels: Tensor, reason: Reason) -> None:
        """Some channels cannot go, by their numbers."""
        if len(channels):
            self.refused.append((channels.long().numpy(), reason))

    def groups(self, order: Mapping[str, int]) -> Iterator[tuple[ChannelGroup, list[Reason]]]:
        """Units that have as many channels in the same layers, one of which makes them.

        Args:
            order: name → place of the layers that run.

        Yields:
            A group, and why it cannot go. A reason holds for all units that go with the same layers.
        """
        if not self.axes:
            return
        axes = list(self.axes.values())
        # Where nothing could be followed, every channel is a unit of its own; its axis is refused.
        without = np.concatenate([np.empty((0, 2), dtype=np.int64), *self.edges])
        unit = _connected(np.concatenate([without, *self.gates]), self.total)
        factor = _connected(without, self.total)
        where = np.concatenate([np.full(axis.size, at) for at, axis in enumerate(axes)])
        counts = np.zeros((int(unit.max()) + 1, len(axes)), dtype=np.int32)
        np.add.at(counts, (unit, where), 1)
        kinds, kind = np.unique(counts, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        reasons: dict[int, list[Reason]] = {}
        for which, why in self.refused:
            for one in np.unique(kind[unit[which]]):
                reasons.setdefault(int(one), []).append(why)
        for number, signature in enumerate(kinds):
            found = {}
            for at in np.flatnonzero(signature):
                units = unit[axes[at].channels]
                own = np.flatnonzero(kind[units] == number)
                own = own[np.argsort(units[own], kind="stable")]
                found[axes[at]] = own.reshape(-1, signature[at])
            group = _group(self.model, found, order, factor)
            if group is not None:
                yield group, reasons.get(number, [])


def _connected(edges: _Indices, count: int) -> _Indices:
    """The number of the component that each of ``count`` things belongs to, by pairs of them ``[E, 2]``."""
    matrix = coo_matrix((np.ones(len(edges), dtype=bool), tuple(edges.T)), shape=(count, count))
    return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int64)


def _group(
    model: nn.Module, channels: Mapping[Axis, _Indices], order: Mapping[str, int], factor: _Indices
) -> ChannelGroup | None:
    """Units as a group, its members in the order in which they run; None where no dense layer makes them.

    Args:
        model: the model.
        channels: of the units on each axis, ``[U, S]``.
        order: name → place of the layers that run.
        factor: channel → number of what goes together with it without any product.
    """
    axes = sorted(channels, key=lambda axis: order.get(axis.layer, len(order)))
    made = [a for a in axes if a.side == "output" and a.parameter is None and _makes(_layer(model, a))]
    if not made:
        return None
    # Units in the order of their channels in the first producer.
    ranked = np.argsort(channels[made[0]][:, 0], kind="stable")
    members = tuple(
        _member(_layer(model, axis), axis, channels[axis][ranked])
        for axis in axes
        if axis.side == "output" or _makes(_layer(model, axis))  # a grouped layer's outputs say its blocks
    )
    factors = np.sort(factor[np.concatenate([a.start + channels[a] for a in made], 1)], 1)
    alone = bool((factors[:, 1:] != factors[:, :-1]).all()) and any(m.role == "consumer" for m in members)
    inner = alone and all(_is_inner(model.get_submodule(m.layer), m) for m in members)
    return ChannelGroup(made[0].layer, len(ranked), members, "inner" if inner else "coupled")


def _makes(layer: nn.Module) -> bool:
    """Whether units may begin or end at a layer."""
    return is_dense(layer) or is_recurrent(layer)


def _layer(model: nn.Module, axis: Axis) -> nn.Module:
    return model.get_submodule(axis.layer)


def _member(layer: nn.Module, axis: Axis, own: _Indices) -> Member:
    dense = axis.parameter is None and _makes(layer)
    size, span = own.shape
    first = int(own.min())
    regular = bool((own.reshape(-1) == first + np.arange(size * span)).all())
    return Member(
        layer=axis.layer,
        role="carrier" if not dense else "producer" if axis.side == "output" else "consumer",
        offset=first,
        span=span,
        width=None if size * span == axis.size else axis.size,
        channels=() if regular else tuple(own.reshape(-1).tolist()),
        parameter=axis.parameter,
    )


def _is_inner(layer: nn.Module, member: Member) -> bool:
    """Whether units can leave without touching what a layer does for the others.

    Of what makes or reads them that they are all it has (no concatenation); of what is in between that it
    treats every channel by itself, as batch norm and depthwise convolutions do, or counts them.
    """
    if member.role != "carrier":
        return member.width is None and not (member.role == "consumer" and member.channels)
    if member.parameter is not None:
        return isinstance(attribute_of(layer, member.parameter), int)
    depthwise = is_convolution(layer) and layer.groups == layer.in_channels == layer.out_channels
    return depthwise or is_channelwise(layer)
