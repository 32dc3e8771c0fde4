"""Find a model's channels by Torch-Pruning's dependency graph: which layers make, carry and read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.groups.attention import within
from coprune.groups.coupled import Coupled, coupled_groups
from coprune.groups.group import ChannelGroup, Units
from coprune.groups.trace import trace, whole_group
from coprune.layers import (
    has_channels,
    is_channelwise,
    is_convolution,
    is_dense,
    is_grouped,
    is_mixing,
    tied_layers,
)
from coprune.plan import Member, Skipped
from coprune.tracing.forward import FAILURES, Inputs

Role = Literal["producer", "consumer", "carrier"]


def _role(graph: tp.DependencyGraph, module: nn.Module, handler: object) -> Role | None:
    """A layer's part in a group; None for operations without channels of their own (additions, …)."""
    if is_dense(module):
        made = handler == graph.get_pruner_of_module(module).prune_out_channels
        return "producer" if made else "consumer"
    return "carrier" if has_channels(module) else None


def _group(graph: tp.DependencyGraph, root: nn.Module, names: dict[nn.Module, str]) -> ChannelGroup | str:
    """The group of a producer's output channels, as members with offset and span; or why there is none."""
    size = graph.get_pruner_of_module(root).get_out_channels(root)
    group = whole_group(graph, root)
    if isinstance(group, str):
        return group
    members: dict[tuple[str, Role], Member] = {}
    regular = True
    for part in group:
        dependency, indices = part.dep, part.idxs
        module = dependency.target.module
        if isinstance(module, nn.Parameter):
            regular = False  # a bare parameter along the channels, such as a layer scale
            continue
        role = _role(graph, module, dependency.handler)
        if role is None or module not in names:
            continue
        offset, span = min(indices), max(1, len(indices) // size)
        # Units must own consecutive channels in order; anything else is a kind of its own.
        regular = regular and list(indices) == list(range(offset, offset + size * span))
        key = (names[module], role)
        regular = regular and key not in members and _removable_alone(module, role, size * span)
        members[key] = Member(layer=names[module], role=role, offset=offset, span=span)
    found = tuple(members.values())
    simple = (
        regular
        and len([m for m in found if m.role == "producer"]) == 1
        and any(m.role == "consumer" for m in found)
        and all(m.span == 1 for m in found if m.role != "consumer")
    )
    return ChannelGroup(names[root], size, found, "inner" if simple else "coupled")


def _removable_alone(module: nn.Module, role: Role, channels: int) -> bool:
    """Whether a unit can leave this layer without touching what the layer does for the others.

    A consumer must read this group and nothing else (no concatenation). Layers in between must
    treat every channel by itself, as batch norm and depthwise convolutions do; group and layer norm
    mix them.
    """
    if role == "consumer":
        return channels == getattr(module, "in_channels", getattr(module, "in_features", None))
    return role == "producer" or is_channelwise(module) or _channelwise(module)


def _channelwise(module: nn.Module) -> bool:
    """Whether a convolution makes every output channel from the one input channel of that number."""
    return is_convolution(module) and module.groups == module.in_channels == module.out_channels


def find_channels(
    model: nn.Module,
    example: Inputs,
    *,
    closed: Mapping[str, str],
    coupled: bool,
    among: Collection[str] | None = None,
    partly: Mapping[str, str] | None = None,
    graph: tp.DependencyGraph | None = None,
) -> Units:
    """The groups of channels of a model that is traced, and the layers that no group covers, with reasons.

    Args:
        model: any module that Torch-Pruning can trace.
        example: one sample ``[1, …]``.
        closed: modules inside of which nothing is made or carried by a group, with the reason.
        coupled: whether coupled groups are offered too.
        among: dense layers whose groups are looked for; None: all.
        partly: layers that no group may have a part in, with what is said of them.
        graph: of the model, when it is known already.

    Raises:
        UserError: the model cannot be traced.
    """
    names = {module: name for name, module in model.named_modules() if name}
    if isinstance(example, dict):
        raise UserError(
            f"{type(model).__name__} reads named inputs but has no attention that is known; "
            "the dependency graph is traced with one tensor"
        )
    graph = graph or trace(model, example)
    kept = {n: f"'{n}' has the weights of '{other}'" for n, other in tied_layers(model).items()}
    kept |= {n.rpartition(".")[0]: f"'{n}' is complex" for n, p in model.named_parameters() if p.is_complex()}
    kept |= {n: f"'{n}' {said}" for n, said in (partly or {}).items()}
    order = _execution_order(model, example)
    dense = [n for n in order if not is_grouped(model.get_submodule(n))]
    groups: list[ChannelGroup] = []
    skipped = [
        Skipped(layer=n, reason=(partly or {}).get(n, _NOT_RUN)) for n in _not_run(model, order, among)
    ]
    closed = {**_for_all_samples(model, example, order), **closed}
    covered: set[str] = set()
    inner: list[str] = []
    for name in dense:
        if name in covered or (among is not None and name not in among):
            continue
        module = model.get_submodule(name)
        pruner = graph.get_pruner_of_module(module)
        if pruner is None or module not in graph.module2node:
            skipped.append(Skipped(layer=name, reason="not reached by the dependency graph"))
            continue
        group = _group(graph, module, names)
        if isinstance(group, str):
            skipped.append(Skipped(layer=name, reason=_unknown_reader(graph, module, names) or group))
            continue
        producers = [m.layer for m in group.of_role("producer")]
        covered.update(producers)
        reason = _closing(group, closed) or _keeping(group, kept)
        if reason is not None:
            pass
        elif name == dense[-1] or not (group.of_role("consumer") or _mixing(model, group)):
            reason = _unknown_reader(graph, module, names) or "makes the model's output"
        elif group.kind == "coupled":
            reason = _coupling(group)
        elif name == dense[0]:
            reason = "first layer, left alone"
        elif group.size < 2:
            # Pruned before, or a gate: without its one channel nothing is left of the layer.
            reason = "makes a single channel"
        if reason is None:
            groups.append(group)
        else:
            skipped.extend(Skipped(layer=p, reason=reason) for p in producers or [name])
        if group.kind == "inner":
            inner.append(name)
    if coupled:
        roots = [n for n in order if among is None or n in among]
        ran = list(order)
        last = dense[-1] if _unknown_reader(graph, model.get_submodule(dense[-1]), names) is None else None
        found = coupled_groups(graph, model, ran, roots=roots, last=last, leave=inner)
        return _with_coupled(groups, skipped, found, ran, closed, kept)
    return Units(tuple(groups), tuple(skipped))


def _with_coupled(
    groups: Sequence[ChannelGroup],
    skipped: Sequence[Skipped],
    found: Coupled,
    order: Sequence[str],
    closed: Mapping[str, str],
    kept: Mapping[str, str],
) -> Units:
    """Coupled groups beside the inner ones, in the order of the network, and what is still left alone."""
    offered, left = list(groups), dict(found.refused)
    for group in found.groups:
        producers = [m.layer for m in group.of_role("producer")]
        reason = _closing(group, closed) or _keeping(group, kept)
        if reason is not None:
            left |= dict.fromkeys(producers, reason)
        else:
            offered.append(group)
    offered.sort(key=lambda g: order.index(g.of_role("producer")[0].layer))
    made = {m.layer for g in offered for m in g.of_role("producer")}
    why = {s.layer: s.reason for s in skipped if s.layer not in made}
    why |= {layer: reason for layer, reason in left.items() if layer not in made}
    return Units(tuple(offered), tuple(Skipped(layer=layer, reason=reason) for layer, reason in why.items()))


def _unknown_reader(graph: tp.DependencyGraph, root: nn.Module, names: Mapping[nn.Module, str]) -> str | None:
    """Why a layer is left alone: its channels are read by one that cannot be cut, such as a GRU, if so."""
    wide = [m for m in names if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    owners = {id(p): m for m in wide for p in m.parameters(recurse=False)}
    left, seen = list(graph.module2node[root].outputs), set[int]()
    while left:
        node = left.pop()
        if id(node) in seen or is_dense(node.module):
            continue
        seen.add(id(node))
        # Of layers that the graph does not know as such it sees the weights alone.
        for part in (node.module, *(owners.get(id(weight.module)) for weight in node.inputs)):
            if part not in names or not has_channels(part):
                continue
            if not (is_dense(part) or is_convolution(part) or is_channelwise(part) or is_mixing(part)):
                return f"read by '{names[part]}', a {type(part).__name__}, whose channels cannot be cut"
        left.extend(node.outputs)
    return None


_NOT_RUN = "did not run on the example: not used, not called as a layer, or only for other inputs"


def _not_run(model: nn.Module, order: Collection[str], among: Collection[str] | None) -> list[str]:
    """Layers that no channels were followed through, such as experts that were not chosen."""
    found = (n for n, m in model.named_modules() if is_convolution(m) or isinstance(m, nn.Linear))
    return [n for n in found if n and n not in order and (among is None or n in among)]


def run_for_some(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, str]:
    """Layers that run on some inputs ``[N, …]`` and not on others, such as experts, with the reason."""
    first, *others = (set(_execution_order(model, x)) for x in inputs)
    some = first.union(*others) - first.intersection(*others)
    return dict.fromkeys(some, "runs for some inputs only")


def _for_all_samples(model: nn.Module, example: Tensor, order: Mapping[str, int]) -> dict[str, str]:
    """Layers that make as much of two samples as of one, such as those behind a learned query."""
    try:
        twice = _execution_order(model, torch.cat([example, example]))
    except FAILURES:  # traced with one sample, it may take no more
        return {}
    same = [n for n, size in order.items() if twice.get(n) == size]
    return {n: f"'{n}' runs once for all samples, whatever they are" for n in same}


def _closing(group: ChannelGroup, closed: Mapping[str, str]) -> str | None:
    """Why a group is left alone: some of it is made or carried inside a module that is closed, if so."""
    return next(
        (
            reason
            for name, reason in closed.items()
            for m in group.members
            if m.role != "consumer" and within(m.layer, (name,))
        ),
        None,
    )


def _keeping(group: ChannelGroup, kept: Mapping[str, str]) -> str | None:
    """Why a group is left alone: a layer that would be cut has weights that cannot, if so."""
    return next((kept[m.layer] for m in group.members if m.layer in kept), None)


def _mixing(model: nn.Module, group: ChannelGroup) -> bool:
    """Whether the channels pass a layer that does not treat each of them by itself."""
    return any(
        not _removable_alone(model.get_submodule(m.layer), "carrier", group.size)
        for m in group.of_role("carrier")
    )


def _coupling(group: ChannelGroup) -> str:
    """Why a group is no inner group, in words."""
    producers = [m.layer for m in group.of_role("producer")]
    if len(producers) > 1:
        named = ", ".join(sorted(producers)[:4]) + (" …" if len(producers) > 4 else "")
        return f"coupled: {named} are added together or multiplied"
    return "coupled: its channels pass a grouped layer, a norm over channels or a concatenation"


@torch.no_grad()
def _execution_order(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Names of the dense layers in the order in which they first run, and how many values they make."""
    order: dict[str, int] = {}
    with ExitStack() as hooks:
        for name, layer in model.named_modules():
            if is_convolution(layer) or isinstance(layer, nn.Linear):

                def ran(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                    order.setdefault(name, output.numel())

                hooks.enter_context(layer.register_forward_hook(ran))
        model.eval()(example.clone())
    return order
