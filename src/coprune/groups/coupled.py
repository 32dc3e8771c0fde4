"""Coupled groups: channels that a residual sum, a grouped layer or a concatenation ties together.

Torch-Pruning's dependency graph says which channel of a layer goes with which channel of a producer.
Here these pairs are put together: what hangs together, over any number of layers, is a *unit*; units
that have the same number of channels in the same layers are a *group*. Beyond the graph's pairs, the
channels of one block of a grouped convolution or of a group norm go together, so that all blocks stay
equally large: a unit is then a whole block.

Shapes: ``A`` axes (an axis is one layer's input or output channels), ``M`` channels of all axes together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch_pruning as tp
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from coprune.groups.group import ChannelGroup
from coprune.groups.trace import whole_group
from coprune.layers import (
    Side,
    channel_count,
    grouping,
    has_channels,
    is_channel_norm,
    is_channelwise,
    is_dense,
    is_grouped,
    is_mixing,
)
from coprune.plan import Member

_OUTPUT = tp.ops.OPTYPE.OUTPUT


@dataclass(frozen=True)
class _Axis:
    """Input or output channels of one layer, or a bare parameter, with a place among all channels."""

    layer: str
    side: Side
    parameter: str | None
    start: int
    size: int


@dataclass
class _Pairs:
    """Channels that go together, and channels that cannot go, with the reason."""

    axes: dict[tuple[str, Side, str | None], _Axis] = field(default_factory=dict)
    total: int = 0
    left: list[NDArray[np.int64]] = field(default_factory=list)
    right: list[NDArray[np.int64]] = field(default_factory=list)
    refused: list[tuple[NDArray[np.int64], str]] = field(default_factory=list)

    def axis(self, layer: str, module: nn.Module, side: Side, parameter: str | None = None) -> _Axis | None:
        """The axis of a layer; None when it has no channels of its own."""
        if is_dense(module) and parameter is None:
            return self._new(layer, module, side, None)
        if parameter is not None or not is_grouped(module):
            # One axis: such a layer hands on what it is given, channel by channel.
            known = (layer, "output", parameter) in self.axes
            axis = self._new(layer, module, "output", parameter)
            groups = grouping(module)
            if axis is not None and groups is not None and not known:
                self._tie(axis, axis, getattr(module, groups))
            return axis
        known = (layer, "output", None) in self.axes
        read, made = (self._new(layer, module, one, None) for one in ("input", "output"))
        if read is not None and made is not None and not known:
            self._tie(read, read, module.groups)
            self._tie(made, read, module.groups)
        return read if side == "input" else made

    def _new(self, layer: str, module: nn.Module, side: Side, parameter: str | None) -> _Axis | None:
        key = (layer, side, parameter)
        if key not in self.axes:
            size = channel_count(module, side, parameter)
            if size is None:
                return None
            self.axes[key] = _Axis(layer, side, parameter, self.total, size)
            self.total += size
        return self.axes[key]

    def _tie(self, axis: _Axis, to: _Axis, blocks: int) -> None:
        """Every channel with the first of its block, on this axis or on another one."""
        number = np.arange(axis.size) // (axis.size // blocks)
        self.add(axis.start + np.arange(axis.size), to.start + number * (to.size // blocks))

    def add(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        self.left.append(left)
        self.right.append(right)


@dataclass(frozen=True)
class Coupled:
    """Groups, and producers whose channels are left alone, with the reason."""

    groups: tuple[ChannelGroup, ...]
    refused: tuple[tuple[str, str], ...]


def coupled_groups(
    graph: tp.DependencyGraph,
    model: nn.Module,
    order: Sequence[str],
    *,
    last: str | None,
    roots: Sequence[str] | None = None,
    leave: Sequence[str] = (),
) -> Coupled:
    """The coupled groups of a model.

    Args:
        graph: of the model.
        model: the model.
        order: names of its dense and grouped layers in the order in which they run.
        last: the layer that makes the model's output; None: another kind of layer does.
        roots: of ``order``, the layers whose channels are looked at; None: all.
        leave: producers that belong to groups of another kind.

    Returns:
        Groups in the order of the network. A group has a producer, a consumer and two units at least;
        what has not is refused.
    """
    names = {module: name for name, module in model.named_modules() if name}
    bare = {p: name for name, p in model.named_parameters()}
    pairs = _Pairs()
    # A residual stream is made by a layer or two of every block: from one of them all the others are met.
    met: set[str] = set()
    for name in order if roots is None else roots:
        module = model.get_submodule(name)
        if name not in leave and name not in met and module in graph.module2node:
            met |= _follow(pairs, graph, module, names, bare)
    if not pairs.total:
        return Coupled((), ())
    made = pairs.axes.get((last or "", "output", None))
    if made is not None:
        pairs.refused.append((made.start + np.arange(made.size), "makes the model's output"))
    units = _units(pairs)
    place = {name: at for at, (name, _) in enumerate(model.named_modules())}
    ran = {name: at for at, name in enumerate(order)}

    def when(axis: _Axis) -> tuple[int, int]:
        # Layers without weights of their own do not count as running; they keep the module tree's order.
        return ran.get(axis.layer, len(ran)), place[axis.layer]

    found: list[ChannelGroup] = []
    refused: list[tuple[str, str]] = []
    for axes, channels, reason in _grouped(pairs, units):
        ordered = sorted(range(len(axes)), key=lambda i: when(axes[i]))
        axes, channels = [axes[i] for i in ordered], [channels[i] for i in ordered]
        members = list(_members(model, axes, channels))
        producers = [m.layer for m in members if m.role == "producer"]
        if any(layer in leave for layer in producers):
            continue
        size = len(channels[0])
        reason = reason or _shortcoming(members, size)
        if reason is None:
            found.append(ChannelGroup(producers[0], size, tuple(members), "coupled"))
        else:
            refused.extend((layer, reason) for layer in producers)
    found.sort(key=lambda g: ran[g.name])
    return Coupled(tuple(_named_apart(found)), tuple(refused))


def _follow(
    pairs: _Pairs,
    graph: tp.DependencyGraph,
    root: nn.Module,
    names: Mapping[nn.Module, str],
    bare: Mapping[nn.Parameter, str],
) -> set[str]:
    """Take in what Torch-Pruning says goes with each of a layer's output channels.

    Returns:
        The layers that have all of their own output channels among these.
    """
    source = pairs.axis(names[root], root, "output")
    met: set[str] = set()
    if source is None:
        return met
    everything = source.start + np.arange(source.size)
    group = whole_group(graph, root)
    if isinstance(group, str):
        pairs.refused.append((everything, group))
        return met
    for item in group:
        target, channels, roots = item.dep.target, item.idxs, item.root_idxs
        concerned = everything if None in roots else source.start + np.array(roots, dtype=np.int64)
        if target.type == _OUTPUT:
            pairs.refused.append((concerned, "makes the model's output"))
            continue
        module = target.module
        parameter = None
        if isinstance(module, nn.Parameter):
            layer, _, parameter = bare[module].rpartition(".")
            module = graph.model.get_submodule(layer)
            if is_mixing(module) and channel_count(module, "output"):
                parameter = None  # a library's own norm: Torch-Pruning sees its weight alone
            elif sum(n > 1 for n in target.module.shape) != 1:
                reason = f"'{bare[target.module]}' has several dimensions and it is not known which is whose"
                pairs.refused.append((concerned, reason))
                continue
        elif module not in names:
            continue
        else:
            layer = names[module]
            if not has_channels(module):
                continue
        unfit = _unfit(layer, module, parameter)
        if unfit is None and any(r is None for r in roots):
            unfit = f"Torch-Pruning does not say which channels of '{layer}' go with which"
        if unfit is not None:
            pairs.refused.append((concerned, unfit))
            continue
        made = item.dep.handler == graph.get_pruner_of_module(target.module).prune_out_channels
        axis = pairs.axis(layer, module, "output" if made else "input", parameter)
        if axis is not None:  # a PReLU with one slope for all has no channels
            if channels and max(channels) >= axis.size:
                pairs.refused.append((concerned, f"Torch-Pruning counts '{layer}' wrongly"))
                continue
            pairs.add(axis.start + np.array(channels), concerned)
            if axis.side == "output" and len(channels) == axis.size:
                met.add(layer)
    return met


def _unfit(layer: str, module: nn.Module, parameter: str | None) -> str | None:
    """Why channels that pass a layer cannot be removed, if so."""
    if parameter is not None or is_dense(module) or is_channelwise(module) or is_mixing(module):
        fits = not is_channel_norm(module) or channel_count(module, "output") or parameter
        return None if fits else f"'{layer}' normalises over pixels and channels at once"
    if is_grouped(module):
        # Torch-Pruning takes as many groups as outputs for depthwise, whatever the inputs are.
        odd = module.groups == module.out_channels != module.in_channels
        return f"'{layer}' reads several channels a group and makes one" if odd else None
    return f"they pass '{layer}', a {type(module).__name__}, whose units are not known"


def _units(pairs: _Pairs) -> NDArray[np.int64]:
    """The unit that each channel belongs to, ``[M]``."""
    # Where nothing could be followed, every channel is a unit of its own; its axis is refused.
    none = np.empty(0, dtype=np.int64)
    left, right = np.concatenate([none, *pairs.left]), np.concatenate([none, *pairs.right])
    edges = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(pairs.total, pairs.total))
    _, unit = connected_components(edges, directed=False)
    return np.asarray(unit, dtype=np.int64)


def _grouped(
    pairs: _Pairs, unit: NDArray[np.int64]
) -> Iterator[tuple[list[_Axis], list[NDArray[np.int64]], str | None]]:
    """Units that have as many channels in the same layers.

    Yields:
        The axes they have channels on, on each of them ``[U, S]`` channels, and why they cannot go.
    """
    axes = list(pairs.axes.values())
    where = np.concatenate([np.full(axis.size, at) for at, axis in enumerate(axes)])
    counts = np.zeros((unit.max() + 1, len(axes)), dtype=np.int32)
    np.add.at(counts, (unit, where), 1)
    reasons: dict[int, str] = {}
    for which, why in pairs.refused:
        for one in np.unique(unit[which]):
            reasons.setdefault(int(one), why)
    # A reason holds for all units that go with the same layers.
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    for at, signature in enumerate(kinds):
        mine = np.flatnonzero(kind == at)
        here = np.flatnonzero(signature)
        reason = next((reasons[int(u)] for u in mine if int(u) in reasons), None)
        channels = []
        rank = np.full(len(counts), -1)
        rank[mine] = np.arange(len(mine))
        for a in here:
            on = unit[axes[a].start : axes[a].start + axes[a].size]
            own = np.flatnonzero(rank[on] >= 0)
            own = own[np.argsort(rank[on][own], kind="stable")]
            channels.append(own.reshape(len(mine), signature[a]))
        # Units in the order of their channels in the first layer.
        order = np.argsort(channels[0][:, 0], kind="stable")
        yield [axes[a] for a in here], [c[order] for c in channels], reason


def _members(
    model: nn.Module, axes: Sequence[_Axis], channels: Sequence[NDArray[np.int64]]
) -> Iterator[Member]:
    for axis, own in zip(axes, channels, strict=True):
        module = model.get_submodule(axis.layer)
        if axis.side == "input" and is_grouped(module):
            continue  # the blocks of its output say it
        dense = axis.parameter is None and is_dense(module)
        size, span = own.shape
        first = int(own.min())
        regular = bool((own.reshape(-1) == first + np.arange(size * span)).all())
        yield Member(
            layer=axis.layer,
            role="carrier" if not dense else "producer" if axis.side == "output" else "consumer",
            offset=first,
            span=span,
            width=None if size * span == axis.size else axis.size,
            channels=() if regular else tuple(own.reshape(-1).tolist()),
            parameter=axis.parameter,
        )


def _shortcoming(members: Sequence[Member], size: int) -> str | None:
    roles = {m.role for m in members}
    if "producer" not in roles:
        return "no dense layer makes these channels"
    if "consumer" not in roles:
        return "makes the model's output"
    return "coupled: all its channels can only go together" if size < 2 else None


def _named_apart(groups: Sequence[ChannelGroup]) -> Iterator[ChannelGroup]:
    """Several groups of one first producer are numbered."""
    seen: dict[str, int] = {}
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        number = seen[group.name]
        name = group.name if number == 1 else f"{group.name}#{number}"
        yield ChannelGroup(name, group.size, group.members, group.kind)
