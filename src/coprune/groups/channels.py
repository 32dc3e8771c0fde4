"""Find a model's channel groups: which channels of which layers go together.

Torch-Pruning's dependency graph says which channel of a layer goes with which channel of a producer.
Here these pairs are put together: what hangs together, over any number of layers, is a *unit*; units
that have the same number of channels in the same layers are a *group*. Beyond the graph's pairs, the
channels of one block of a grouped convolution or of a group norm go together, so that all blocks stay
equally large: a unit is then a whole block.

Shapes: ``A`` axes (an axis is one layer's input or output channels), ``M`` channels of all axes together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coprune.compat.torch_pruning import ChannelGraph, NotFollowedError, Place, connected
from coprune.errors import UserError
from coprune.groups.attention import within
from coprune.groups.group import ChannelGroup, Units
from coprune.groups.reasons import Reason, because
from coprune.layers import (
    Side,
    channel_count,
    grouping,
    is_channel_norm,
    is_channelwise,
    is_convolution,
    is_dense,
    is_grouped,
    is_mixing,
    norm_of,
    tied_layers,
)
from coprune.plan import Member, SkipCode
from coprune.tracing.forward import FAILURES, Inputs
from coprune.tracing.hooks import hooked

_Indices = NDArray[np.int64]

_BY_READER = (SkipCode.OUTPUT, SkipCode.NOT_FOLLOWED, SkipCode.UNKNOWN_UNITS)
"""What is better said of the layer that reads the channels, where that cannot be cut."""


@dataclass(frozen=True)
class _Axis:
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
class _Pairs:
    """Channels that go together, and channels that cannot go, with the reason."""

    model: nn.Module
    axes: dict[tuple[str, Side, str | None], _Axis] = field(default_factory=dict)
    edges: list[_Indices] = field(default_factory=list)
    refused: list[tuple[_Indices, Reason]] = field(default_factory=list)
    total: int = 0

    def take(self, root: str, places: Sequence[Place]) -> set[str]:
        """Take in what goes with each of a layer's output channels.

        Returns:
            The layers that have all of their own output channels among these.
        """
        met: set[str] = set()
        source = self.axis(root, "output")
        if source is None:
            return met
        for place in places:
            every = None in place.roots
            concerned = source.channels if every else source.start + np.array(place.roots, dtype=np.int64)
            place, unfit = self._fit(place)
            axis = (
                None if unfit or place.layer is None else self.axis(place.layer, place.side, place.parameter)
            )
            if axis is not None and place.channels and max(place.channels) >= axis.size:
                unfit = because(SkipCode.MISCOUNTED, layer=place.layer)
            if unfit is not None:
                self.refused.append((concerned, unfit))
            elif axis is not None:  # a PReLU with one slope for all has no channels
                self.tie(axis.start + np.array(place.channels, dtype=np.int64), concerned)
                if axis.side == "output" and len(place.channels) == axis.size:
                    met.add(axis.layer)
        return met

    def _fit(self, place: Place) -> tuple[Place, Reason | None]:
        """A place, and why channels that come to it cannot be removed, if so."""
        layer, parameter = place.layer, place.parameter
        if layer is None:
            return place, because(SkipCode.OUTPUT)
        module = self.model.get_submodule(layer)
        if parameter is not None:
            name = f"{layer}.{parameter}" if layer else parameter
            if is_mixing(module) and channel_count(module, "output"):
                # A library's own norm: Torch-Pruning sees its weight alone.
                place = replace(place, parameter=None)
            elif sum(n > 1 for n in module.get_parameter(parameter).shape) != 1:
                return place, because(SkipCode.SEVERAL_AXES, parameter=name)
        elif is_channel_norm(module) and not channel_count(module, "output"):
            return place, because(SkipCode.NORM_OVER_MAP, layer=layer)
        elif is_grouped(module):
            # Torch-Pruning takes as many groups as outputs for depthwise, whatever the inputs are.
            if module.groups == module.out_channels != module.in_channels:
                return place, because(SkipCode.UNEVEN_BLOCKS, layer=layer)
        elif not (is_dense(module) or norm_of(module)):
            return place, because(SkipCode.UNKNOWN_UNITS, layer=layer, kind=type(module).__name__)
        return place, because(SkipCode.UNPAIRED, layer=layer) if None in place.roots else None

    def axis(self, layer: str, side: Side, parameter: str | None = None) -> _Axis | None:
        """The axis of a layer; None when it has no channels of its own."""
        module = self.model.get_submodule(layer)
        if parameter is None and is_grouped(module):
            known = (layer, "output", None) in self.axes
            read, made = self._new(layer, "input"), self._new(layer, "output")
            if read is not None and made is not None and not known:
                self._tie_blocks(read, read, module.groups)
                self._tie_blocks(made, read, module.groups)
            return read if side == "input" else made
        if parameter is None and is_dense(module):
            return self._new(layer, side)
        # One axis: such a layer hands on what it is given, channel by channel.
        known = (layer, "output", parameter) in self.axes
        axis, groups = self._new(layer, "output", parameter), grouping(module)
        if axis is not None and groups is not None and not known:
            self._tie_blocks(axis, axis, getattr(module, groups))
        return axis

    def _new(self, layer: str, side: Side, parameter: str | None = None) -> _Axis | None:
        key = (layer, side, parameter)
        if key not in self.axes:
            size = channel_count(self.model.get_submodule(layer), side, parameter)
            if size is None:
                return None
            self.axes[key] = _Axis(layer, side, parameter, self.total, size)
            self.total += size
        return self.axes[key]

    def _tie_blocks(self, axis: _Axis, to: _Axis, blocks: int) -> None:
        """Every channel with the first of its block, on this axis or on another one."""
        block = np.arange(axis.size) // (axis.size // blocks)
        self.tie(axis.channels, to.start + block * (to.size // blocks))

    def tie(self, left: _Indices, right: _Indices) -> None:
        """Channels that go together, pair by pair."""
        self.edges.append(np.stack([left, right], 1))

    def refuse(self, layer: str, reason: Reason) -> None:
        """None of a layer's output channels can go."""
        axis = self.axis(layer, "output")
        if axis is not None:
            self.refused.append((axis.channels, reason))

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
        unit = connected(np.concatenate([np.empty((0, 2), dtype=np.int64), *self.edges]), self.total)
        where = np.concatenate([np.full(axis.size, at) for at, axis in enumerate(axes)])
        counts = np.zeros((unit.max() + 1, len(axes)), dtype=np.int32)
        np.add.at(counts, (unit, where), 1)
        kinds, kind = np.unique(counts, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        reasons: dict[int, list[Reason]] = {}
        for which, why in self.refused:
            for one in np.unique(kind[unit[which]]):
                reasons.setdefault(int(one), []).append(why)
        rank = np.full(len(counts), -1)
        for number, signature in enumerate(kinds):
            mine = np.flatnonzero(kind == number)
            rank[:] = -1
            rank[mine] = np.arange(len(mine))
            found = {}
            for at in np.flatnonzero(signature):
                ranks = rank[unit[axes[at].channels]]
                own = np.flatnonzero(ranks >= 0)
                own = own[np.argsort(ranks[own], kind="stable")]
                found[axes[at]] = own.reshape(len(mine), signature[at])
            group = _group(self.model, found, order)
            if group is not None:
                yield group, reasons.get(number, [])


def find_channels(
    model: nn.Module,
    example: Inputs,
    *,
    closed: Mapping[str, Reason],
    coupled: bool,
    among: Collection[str] | None = None,
    partly: Collection[str] = (),
) -> Units:
    """The groups of channels of a model that is traced, and the layers that no group covers, with reasons.

    Args:
        model: any module that Torch-Pruning can trace.
        example: one sample ``[1, …]``.
        closed: modules inside of which nothing is made or carried by a group, with the reason.
        coupled: whether coupled groups are offered too.
        among: dense layers whose groups are looked for; None: all.
        partly: layers that run for some inputs only; no group has a part in them.

    Raises:
        UserError: the model cannot be traced.
    """
    if isinstance(example, dict):
        raise UserError(
            f"{type(model).__name__} reads named inputs but has no attention that is known; "
            "the dependency graph is traced with one tensor"
        )
    graph = ChannelGraph(model, example)
    ran = _execution_order(model, example)
    order = {name: at for at, name in enumerate(ran)}
    dense = [name for name in ran if is_dense(model.get_submodule(name))]
    left = {name: because(SkipCode.NOT_RUN) for name in _products(model) if name not in ran}
    left |= {name: because(SkipCode.SOME_INPUTS, layer=name) for name in partly if name in left}
    left |= {name: because(SkipCode.NOT_REACHED) for name in dense if name not in graph}
    closed = {**_for_all_samples(model, example, ran), **closed}
    whole = _whole(model, partly)

    pairs = _Pairs(model)
    candidates: list[tuple[ChannelGroup, list[Reason]]] = []
    # A residual stream is made by a layer or two of every block: from one of them all the others are met.
    met: set[str] = set()
    for name in _products(model, ran):
        if name not in graph or name in met or (among is not None and name not in among):
            continue
        try:
            places = graph.follow(name)
        except NotFollowedError as cause:
            pairs.refuse(name, because(SkipCode.NOT_FOLLOWED, cause=cause))
            continue
        alone = _Pairs(model)
        met |= alone.take(name, places)
        own = list(alone.groups(order))
        if len(own) == 1 and own[0][0].kind == "inner":
            candidates += own  # what is misread elsewhere cannot touch it
        else:
            pairs.take(name, places)
    inner = {group.name for group, _ in candidates}
    candidates += [
        (group, refused)
        for group, refused in pairs.groups(order)
        if not inner & {m.layer for m in group.of_role("producer")}
    ]

    found: list[ChannelGroup] = []
    for group, refused in candidates:
        producers = [m.layer for m in group.of_role("producer")]
        reason = _closing(group, closed) or next(
            (whole[m.layer] for m in group.members if m.layer in whole), None
        )
        reason = reason or _graph_reason(model, graph, group, refused, last=dense[-1])
        if reason is None and group.kind == "coupled" and not coupled:
            reason = _coupling(producers)
        elif reason is None and group.kind == "inner" and group.name == dense[0]:
            reason = because(SkipCode.FIRST)
        elif reason is None and group.size < 2:
            # Pruned before, or a gate: without its one channel nothing is left of the layer.
            one = group.kind == "inner"
            reason = because(SkipCode.SINGLE, unit="channel") if one else because(SkipCode.ONE_UNIT)
        if reason is None:
            found.append(group)
        else:
            left |= dict.fromkeys(producers, reason)
    found.sort(key=lambda g: order[g.name])
    made = {m.layer for g in found for m in g.of_role("producer")}
    skipped = sorted(left.items(), key=lambda item: order.get(item[0], -1))
    return Units(
        tuple(_named_apart(found)),
        tuple(why.of(layer) for layer, why in skipped if layer not in made),
    )


def _group(
    model: nn.Module, channels: Mapping[_Axis, _Indices], order: Mapping[str, int]
) -> ChannelGroup | None:
    """Units as a group, its members in the order in which they run; None where no dense layer makes them.

    Args:
        model: the model.
        channels: of the units on each axis, ``[U, S]``.
        order: name → place of the layers that run.
    """
    axes = sorted(channels, key=lambda axis: order.get(axis.layer, len(order)))
    made = [a for a in axes if a.side == "output" and a.parameter is None and is_dense(_layer(model, a))]
    if not made:
        return None
    # Units in the order of their channels in the first producer.
    ranked = np.argsort(channels[made[0]][:, 0], kind="stable")
    members = tuple(
        _member(_layer(model, axis), axis, channels[axis][ranked])
        for axis in axes
        if axis.side == "output" or is_dense(_layer(model, axis))  # a grouped layer's outputs say its blocks
    )
    inner = _are_inner(model, members)
    return ChannelGroup(made[0].layer, len(ranked), members, "inner" if inner else "coupled")


def _layer(model: nn.Module, axis: _Axis) -> nn.Module:
    return model.get_submodule(axis.layer)


def _member(layer: nn.Module, axis: _Axis, own: _Indices) -> Member:
    dense = axis.parameter is None and is_dense(layer)
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


def _are_inner(model: nn.Module, members: Sequence[Member]) -> bool:
    """Whether units can leave without touching what any layer does for the others.

    One producer; consumers that read this group and nothing else (no concatenation); and layers in between
    that treat every channel by itself, as batch norm and depthwise convolutions do.
    """
    roles = [m.role for m in members]
    return (
        roles.count("producer") == 1
        and "consumer" in roles
        and all(m.parameter is None and not m.channels for m in members)
        and all(m.width is None for m in members if m.role != "carrier")
        and all(m.span == 1 for m in members if m.role != "consumer")
        and all(_by_channel(model.get_submodule(m.layer)) for m in members if m.role == "carrier")
    )


def _by_channel(layer: nn.Module) -> bool:
    """Whether every output channel comes from the one input channel of that number."""
    depthwise = is_convolution(layer) and layer.groups == layer.in_channels == layer.out_channels
    return depthwise or is_channelwise(layer)


def _graph_reason(
    model: nn.Module, graph: ChannelGraph, group: ChannelGroup, refused: Sequence[Reason], *, last: str
) -> Reason | None:
    """Why a group is left alone by what the graph says, if so.

    Args:
        model: the model.
        graph: of the model.
        group: inner channels may be handed out too, beside what reads them.
        refused: what was found on the way.
        last: the dense layer that runs last.
    """
    producers = [m.layer for m in group.of_role("producer")]
    found = [why for why in refused if group.kind == "coupled" or why.code != SkipCode.OUTPUT]
    if last in producers or not group.of_role("consumer"):
        found.append(because(SkipCode.OUTPUT))
    if not found or found[0].code not in _BY_READER:
        return next(iter(found), None)
    for name in producers:
        reader = graph.uncuttable_reader(name) if name in graph else None
        if reader is not None:
            return because(SkipCode.READER, layer=reader, kind=type(model.get_submodule(reader)).__name__)
    return found[0]


def _coupling(producers: Sequence[str]) -> Reason:
    """Why a group is no inner group."""
    if len(producers) < 2:
        return because(SkipCode.COUPLED)
    named = ", ".join(sorted(producers)[:4]) + (" …" if len(producers) > 4 else "")
    return because(SkipCode.SUMMED, layers=named)


def _closing(group: ChannelGroup, closed: Mapping[str, Reason]) -> Reason | None:
    """Why a group is left alone: some of it is made or carried inside a module that is closed, if so."""
    own = [m.layer for m in group.members if m.role != "consumer"]
    return next((why for name, why in closed.items() for layer in own if within(layer, (name,))), None)


def _whole(model: nn.Module, partly: Collection[str]) -> dict[str, Reason]:
    """Layers that cannot be cut, whatever their part in a group."""
    whole = {n: because(SkipCode.TIED, layer=n, other=other) for n, other in tied_layers(model).items()}
    for name, parameter in model.named_parameters():
        if parameter.is_complex():
            whole[name.rpartition(".")[0]] = because(SkipCode.COMPLEX, parameter=name)
    return whole | {n: because(SkipCode.SOME_INPUTS, layer=n) for n in partly}


def _named_apart(groups: Sequence[ChannelGroup]) -> Iterator[ChannelGroup]:
    """Several groups of one first producer are numbered."""
    seen: dict[str, int] = {}
    for group in groups:
        number = seen[group.name] = seen.get(group.name, 0) + 1
        yield group if number == 1 else replace(group, name=f"{group.name}#{number}")


def _products(model: nn.Module, among: Collection[str] | None = None) -> list[str]:
    """Dense layers and grouped convolutions, in the order of ``among``, or of the model."""
    names = [name for name, _ in model.named_modules() if name] if among is None else among
    found = ((name, model.get_submodule(name)) for name in names)
    return [name for name, layer in found if is_convolution(layer) or isinstance(layer, nn.Linear)]


@torch.no_grad()
def _execution_order(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Names of dense layers and norms in the order in which they first run, and how many values they make."""
    order: dict[str, int] = {}

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            order.setdefault(name, output.numel())

    layers = [*_products(model), *(name for name, layer in model.named_modules() if norm_of(layer))]
    with hooked(model, {name: partial(note, name) for name in layers}):
        model.eval()(example.clone())
    return order


def run_for_some(model: nn.Module, inputs: Sequence[Tensor]) -> set[str]:
    """Layers that run on some inputs ``[N, …]`` and not on others, such as experts."""
    first, *others = (set(_products(model, _execution_order(model, x))) for x in inputs)
    return first.union(*others) - first.intersection(*others)


def _for_all_samples(model: nn.Module, example: Tensor, order: Mapping[str, int]) -> dict[str, Reason]:
    """Layers that make as much of two samples as of one, such as those behind a learned query."""
    try:
        twice = _execution_order(model, torch.cat([example, example]))
    except FAILURES:  # traced with one sample, it may take no more
        return {}
    same = [name for name in _products(model, order) if twice.get(name) == order[name]]
    return {name: because(SkipCode.ALL_SAMPLES, layer=name) for name in same}
