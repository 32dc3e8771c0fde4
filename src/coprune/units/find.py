"""Find the units of any model: a transformer's by its family, others' by Torch-Pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from coprune.errors import UserError
from coprune.forward import Inputs
from coprune.measure.macs import layer_costs
from coprune.plan import Member, Skipped
from coprune.units.attention import find_transformer_units, within
from coprune.units.group import ChannelGroup, CostModel, LayerShare, Units

_DENSE = (nn.Conv2d, nn.Linear)

_CHANNELWISE = (_BatchNorm, _InstanceNorm, nn.PReLU)

Role = Literal["producer", "consumer", "carrier"]


def trace(model: nn.Module, example: Inputs) -> tp.DependencyGraph:
    """The dependency graph of a model.

    Args:
        model: its forward pass is run once with gradients on.
        example: one or more samples ``[N, …]``.

    Raises:
        UserError: Torch-Pruning cannot follow the model.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            # Tracing follows gradients; a frozen backbone would look like a constant.
            for parameter in frozen:
                parameter.requires_grad_(True)
            return tp.DependencyGraph().build_dependency(model.eval(), example_inputs=example)
    except (RuntimeError, ValueError, LookupError, AttributeError, TypeError, AssertionError) as cause:
        raise UserError(
            f"the dependency graph of {type(model).__name__} cannot be traced: "
            f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"
        ) from cause
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _role(graph: tp.DependencyGraph, module: nn.Module, handler: object) -> Role | None:
    """A layer's part in a group; None for operations without channels of their own (additions, …)."""
    if isinstance(module, _DENSE) and not _depthwise(module):
        made = handler == graph.get_pruner_of_module(module).prune_out_channels
        return "producer" if made else "consumer"
    if any(True for _ in module.parameters(recurse=False)):
        return "carrier"
    return None


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1


def _group(graph: tp.DependencyGraph, root: nn.Module, names: dict[nn.Module, str]) -> ChannelGroup:
    """The group of a producer's output channels, as members with offset and span."""
    size = graph.get_pruner_of_module(root).get_out_channels(root)
    group = graph.get_pruning_group(
        root, graph.get_pruner_of_module(root).prune_out_channels, list(range(size))
    )
    members: dict[tuple[str, Role], Member] = {}
    regular = True
    for dependency, indices in group:
        module = dependency.target.module
        if isinstance(module, nn.Parameter):
            regular = False  # a bare parameter along the channels, such as a layer scale
            continue
        role = _role(graph, module, dependency.handler)
        if role is None or module not in names:
            continue
        offset, span = min(indices), len(indices) // size
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
    return role == "producer" or isinstance(module, _CHANNELWISE) or _channelwise(module)


def _channelwise(module: nn.Module) -> bool:
    """Whether a convolution makes every output channel from the one input channel of that number."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels


def find_units(
    model: nn.Module, example: Inputs, *, skip: Sequence[str] = (), graph: tp.DependencyGraph | None = None
) -> Units:
    """All groups of a model, and the layers that no group covers, with reasons.

    A transformer's heads and feed-forward neurons are found by its family
    (:func:`coprune.units.attention.find_transformer_units`), the channels of any other model by its
    dependency graph. There, the first and the last layer are left alone (CoSeP, arXiv 2505.13225).
    Coupled groups are found and reported, but not yet offered for pruning.

    Args:
        model: any module that Torch-Pruning can trace, or a transformer.
        example: one sample with a batch dimension; a transformer is not called.
        skip: module names to leave alone; a container stands for all layers inside it.
        graph: of the model, when it is known already.

    Raises:
        UserError: the model cannot be traced, its attention is of an unknown family, or a name in
            ``skip`` does not exist.
    """
    names = {module: name for name, module in model.named_modules() if name}
    unknown = sorted(set(skip) - set(names.values()))
    if unknown:
        raise UserError(f"--skip {unknown[0]}: no such layer in {type(model).__name__}")
    transformer = find_transformer_units(model, skip=skip)
    if transformer is not None:
        return transformer
    if isinstance(example, dict):
        raise UserError(
            f"{type(model).__name__} reads named inputs but has no attention that is known; "
            "the dependency graph is traced with one tensor"
        )
    graph = graph or trace(model, example)
    dense = [n for n in _execution_order(model, example) if not _depthwise(model.get_submodule(n))]
    groups: list[ChannelGroup] = []
    skipped: list[Skipped] = []
    covered: set[str] = set()
    for name in dense:
        if name in covered:
            continue
        module = model.get_submodule(name)
        pruner = graph.get_pruner_of_module(module)
        if pruner is None or module not in graph.module2node:
            skipped.append(Skipped(layer=name, reason="not reached by the dependency graph"))
            continue
        group = _group(graph, module, names)
        producers = [m.layer for m in group.of_role("producer")]
        covered.update(producers)
        reason = None
        if any(within(m.layer, skip) for m in group.members if m.role != "consumer"):
            reason = "left alone as asked (--skip)"
        elif name == dense[-1] or not (group.of_role("consumer") or _mixing(model, group)):
            reason = "makes the model's output"
        elif group.kind == "coupled":
            reason = _coupling(group)
        elif name == dense[0]:
            reason = "first layer, left alone"
        if reason is None:
            groups.append(group)
        else:
            skipped.extend(Skipped(layer=p, reason=reason) for p in producers or [name])
    return Units(tuple(groups), tuple(skipped))


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
        return f"coupled: {named} are added together"
    return "coupled: its channels pass a grouped layer, a norm over channels or a concatenation"


@torch.no_grad()
def _execution_order(model: nn.Module, example: Tensor) -> list[str]:
    """Names of the dense layers in the order in which they first run."""
    order: dict[str, None] = {}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.setdefault(name))
        for name, module in model.named_modules()
        if isinstance(module, _DENSE)
    ]
    try:
        model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def cost_model(model: nn.Module, example: Inputs, groups: Sequence[ChannelGroup]) -> CostModel:
    """What each layer costs and which groups scale it.

    The products of queries, keys and values are an attention module's own cost, and its heads' group
    scales them.

    Args:
        model: unpruned.
        example: one sample ``[1, …]``.
        groups: the groups that may lose units.
    """
    output = {m.layer: g.name for g in groups for m in g.members if m.role != "consumer"}
    read = {m.layer: g.name for g in groups for m in g.members if m.role == "consumer"}
    return CostModel(
        tuple(
            LayerShare(c.name, c.macs, c.params, output.get(c.name), read.get(c.name))
            for c in layer_costs(model, example)
            if c.macs or c.params
        ),
        {g.name: g.size for g in groups},
    )
