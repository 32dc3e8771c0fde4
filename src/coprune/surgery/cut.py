"""Apply a plan to a model: slice the layers that the plan's members name.

No graph is traced: members say which rows and columns belong to which unit (:mod:`coprune.groups`), all of
them counted in the unpruned model. So groups that share a concatenation do not get into each other's way.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coprune import given
from coprune.errors import UserError, shown
from coprune.groups import columns_of, in_blocks, removed, removed_channels
from coprune.groups.attention import attention_family, head_counts, set_count
from coprune.layers import (
    READING,
    Side,
    attribute_of,
    channel_count,
    is_convolution,
    is_dense,
    is_gpt2_linear,
    is_recurrent,
    is_transposed,
    norm_of,
    set_size,
)
from coprune.models.canonicalize import canonical_copy, restore_format
from coprune.models.copies import copied
from coprune.models.registry import remember, source_of
from coprune.plan import GroupDecision, Member, Plan
from coprune.tracing.forward import FAILURES, Inputs, check_takes

TABLES = ("relative_position_bias_table",)
"""Parameters ``[places, heads]`` of modules that are no layers of PyTorch (BEiT, Swin)."""


def cut(model: nn.Module, decisions: tuple[GroupDecision, ...]) -> nn.Module:
    """A copy of the model without the units that were not kept.

    Args:
        model: left as it is.
        decisions: one a group; groups keep their order.

    Returns:
        The smaller model, in evaluation mode; it remembers the source of the full one.

    Raises:
        UserError: a decision names a layer that the model lacks, that has another size, or that is of a type
            that cannot be sliced.
    """
    check_fits(model, decisions)
    pruned = copied(model).cpu().eval()
    parts: dict[tuple[str, str, str | None], list[Tensor]] = defaultdict(list)
    last: dict[str, GroupDecision] = {}
    for decision, member, channels in removed_channels(decisions):
        # A fused projection has a share in queries, in keys and in values; what is read behind a
        # concatenation has one in every group.
        parts[member.layer, member.role, member.parameter].append(channels)
        last[member.layer] = decision
    for (name, role, bare), shares in parts.items():
        layer, gone = pruned.get_submodule(name), torch.cat(shares)
        if bare is not None:
            _slice_bare(layer, bare, gone)
        elif role == "carrier":
            _slice_carrier(name, layer, gone, last[name])
        else:
            _slice_dense(name, layer, gone, "input" if role == "consumer" else "output")
    for parameter in pruned.parameters():
        parameter.grad = None
    source = source_of(model)
    return remember(pruned, source) if source else pruned


def check_fits(model: nn.Module, decisions: tuple[GroupDecision, ...]) -> None:
    """Refuse a plan that was made for another model.

    Raises:
        UserError: names the first layer that is missing or has another number of channels.
    """
    modules = dict(model.named_modules())

    def refuse(cause: str) -> UserError:
        return UserError(f"plan for another model: {cause}")

    for decision in decisions:
        first = decision.name.partition("#")[0]  # which several groups may be named after
        if first not in modules:
            raise refuse(f"layer '{first}' is not in this {type(model).__name__}")
        shares: dict[tuple[str, str], list[Member]] = defaultdict(list)
        for member in decision.members:
            shares[member.layer, member.role].append(member)
        if first not in {layer for layer, _ in shares}:
            raise refuse(f"group '{decision.name}' lists no channels of that layer")
        for (layer, role), members in shares.items():
            module = modules.get(layer)
            if module is None:
                raise refuse(f"layer '{layer}' is not in this {type(model).__name__}")
            bare = next((m.parameter for m in members if m.parameter is not None), None)
            if bare is not None and not isinstance(attribute_of(module, bare), nn.Parameter | int):
                raise refuse(f"layer '{layer}' has no parameter or size '{bare}'")
            side: Side = "input" if role == "consumer" else "output"
            has = channel_count(module, side, members[0].parameter)
            # A fused projection has several shares in a group of heads, the last one up to its end.
            needs = max(m.width or m.offset + decision.size * m.span for m in members)
            # A consumer behind a concatenation reads more than this group.
            exact = role != "consumer" or any(m.width for m in members)
            if has is not None and (has != needs if exact else has < needs):
                raise refuse(f"layer '{layer}' has {has} channels, the plan says {needs}")


def apply_plan(model: nn.Module, plan: Plan | str | Path, example: Inputs) -> nn.Module:
    """:func:`cut` with a plan, or its file, of a model as its user has it (:mod:`.canonicalize`).

    Args:
        model: unpruned; left as it is.
        plan: of this model.
        example: one sample ``[1, …]`` that the model must take, before and behind the cut.

    Raises:
        UserError: no model, no plan, or a plan for another model; the model does not take the example, or
            what is left of it does not run.
    """
    source, read = source_of(given.module(model, "model")), given.plan(plan)
    if read is None:
        raise UserError("plan is None; give a Plan, or its file")
    whole = canonical_copy(model)
    if isinstance(example, Tensor):
        check_takes(whole, example)
    try:
        pruned = cut(remember(whole, source) if source else whole, read.groups)
    except UserError:
        raise
    except FAILURES as cause:
        raise UserError(
            f"plan for another model: it cannot be cut so ({shown(str(cause), most=200)})"
        ) from cause
    if isinstance(example, Tensor):
        try:
            check_takes(pruned, example)
        except UserError as cause:
            raise UserError(f"plan for another model: what it leaves does not run ({cause})") from cause
    return restore_format(pruned)


def _drop(layer: nn.Module, name: str, gone: Tensor, axis: int) -> int:
    """Take rows or columns out of a parameter or buffer, if the layer has it; returns how many stay."""
    tensor = getattr(layer, name, None)
    if tensor is None:
        return 0
    kept = removed(gone, tensor.shape[axis]).to(tensor.device)
    fresh = tensor.detach().index_select(axis, kept).contiguous()
    if isinstance(tensor, nn.Parameter):
        fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
    setattr(layer, name, fresh)
    return len(kept)


def _slice_bare(layer: nn.Module, name: str, gone: Tensor) -> None:
    """Take channels out of a module's own parameter, or off an attribute that counts them."""
    value = attribute_of(layer, name)
    if isinstance(value, nn.Parameter):
        _drop(layer, name, gone, next(axis for axis, n in enumerate(value.shape) if n > 1))
    else:
        set_size(layer, name, value - len(gone))


def _slice_recurrent(layer: Any, gone: Tensor, side: Side) -> None:
    """Take inputs, or hidden units of all layers and directions, out of a recurrent layer, in place."""
    if side == "input":
        layer.input_size = max(_drop(layer, name, gone, 1) for name in READING)
    else:
        had = layer.hidden_size
        for name, parameter in list(layer.named_parameters(recurse=False, remove_duplicate=False)):
            _drop(layer, name, in_blocks(gone, had, len(parameter)), 0)
            if name.startswith("weight") and name not in READING:
                # A later layer reads both directions of the one before.
                _drop(layer, name, in_blocks(gone, had, parameter.shape[1]), 1)
        layer.hidden_size = had - len(gone)
    if isinstance(layer, nn.RNNBase):
        layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]


def _slice_dense(name: str, layer: nn.Module, gone: Tensor, side: Side) -> None:
    """Take inputs or outputs out of a dense layer, in place."""
    if is_recurrent(layer):
        _slice_recurrent(layer, gone, side)
        return
    if not (is_dense(layer) or is_gpt2_linear(layer)):
        raise UserError(f"layer '{name}': {side}s of a {type(layer).__name__} cannot be sliced")
    made = side == "output"
    left = _drop(layer, "weight", gone, int(made == is_transposed(layer)))
    if made:
        _drop(layer, "bias", gone, 0)
    short, long = ("out", "nf") if made else ("in", "nx")
    names = (f"{short}_features", f"{short}_channels", long)
    setattr(layer, next(n for n in names if hasattr(layer, n)), left)


def slice_passing(layer: nn.Module, gone: Tensor) -> bool:
    """Take channels out of a norm, a grouped convolution or a PReLU, in place.

    Args:
        layer: any layer.
        gone: its channels to remove, ``[R]``.

    Returns:
        Whether it is one of them.
    """
    if is_convolution(layer):
        block, each = layer.out_channels // layer.groups, layer.in_channels // layer.groups
        blocks = layer.groups - len(gone) // block
        _drop(layer, "weight", columns_of((gone // block).unique(), each) if layer.transposed else gone, 0)
        _drop(layer, "bias", gone, 0)
        layer.groups, layer.in_channels, layer.out_channels = blocks, blocks * each, blocks * block
        return True
    norm = norm_of(layer)
    count = norm.channels(layer) if norm else None
    if norm is not None and count is not None:  # of a PReLU with one slope for all there is nothing to take
        left = count - len(gone)
        for vector in norm.vectors:
            _drop(layer, vector, gone, 0)
        if norm.groups:
            setattr(layer, norm.groups, left * getattr(layer, norm.groups) // count)
        if hasattr(layer, norm.count):
            setattr(layer, norm.count, left if isinstance(getattr(layer, norm.count), int) else (left,))
    return norm is not None


def _slice_carrier(name: str, layer: nn.Module, gone: Tensor, decision: GroupDecision) -> None:
    """A norm or grouped convolution, a table with a column a head, or the attention module itself."""
    if slice_passing(layer, gone):
        return
    if isinstance(layer, nn.Embedding):
        layer.embedding_dim = _drop(layer, "weight", gone, 1)
        return
    tables = [t for t in TABLES if isinstance(getattr(layer, t, None), nn.Parameter)]
    for table in tables:
        _drop(layer, table, gone, 1)
    family = attention_family(name, layer)
    if family is None and not tables:
        raise UserError(f"layer '{name}': a {type(layer).__name__} in between cannot be sliced")
    for parameter in family.parameters if family else ():
        _drop(layer, parameter, gone, -1)
    for attribute, count in head_counts(family, layer).items() if family else ():
        set_count(layer, attribute, count * len(decision.kept) // decision.size)
