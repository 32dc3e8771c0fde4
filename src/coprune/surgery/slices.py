"""Cut attention heads, feed-forward neurons and coupled channels: slice the layers that members name.

No graph is traced: members say which rows and columns belong to which unit
(:mod:`coprune.groups.attention`, :mod:`coprune.groups.coupled`), all of them counted in the unpruned model.
So groups that share a concatenation do not get into each other's way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.groups import removed, removed_channels
from coprune.groups.attention import attention_family, transformer_groups
from coprune.layers import (
    FROZEN,
    is_convolution,
    is_mixing,
    is_transposed,
    norm_of,
)
from coprune.plan import GroupDecision

TABLES = ("relative_position_bias_table",)
"""Parameters ``[places, heads]`` of modules that are no layers of PyTorch (BEiT, Swin)."""


def is_sliced(model: nn.Module, decisions: Sequence[GroupDecision]) -> list[bool]:
    """Which decisions are cut here, and not through a traced graph.

    Heads and neurons of a transformer; and, as soon as a plan has a coupled group, all of its channels.
    """
    names = {group.name for group in transformer_groups(model)}
    coupled = any(_is_coupled(d, model) for d in decisions if d.name not in names)
    return [coupled or decision.name in names for decision in decisions]


def _is_coupled(decision: GroupDecision, model: nn.Module) -> bool:
    """Whether a group is more than one producer, layers that treat each channel by itself, and readers."""
    producers = [m for m in decision.members if m.role == "producer"]
    return len(producers) != 1 or any(
        m.width is not None
        or m.parameter is not None
        or (m.role != "consumer" and m.span > 1)
        or (m.role == "carrier" and _is_unknown(model.get_submodule(m.layer)))
        for m in decision.members
    )


def _is_unknown(layer: nn.Module) -> bool:
    """Whether Torch-Pruning cannot cut a layer between others, or not as it should be."""
    return is_mixing(layer) or norm_of(layer) is FROZEN


def slice_units(model: nn.Module, decisions: Sequence[GroupDecision]) -> None:
    """Remove the units that were not kept, in place.

    Args:
        model: that the decisions fit.
        decisions: about groups of heads, neurons or channels.

    Raises:
        UserError: a member's layer is of a type that cannot be sliced.
    """
    shares: dict[tuple[str, str, str | None], list[Tensor]] = defaultdict(list)
    last: dict[str, GroupDecision] = {}
    for decision, member, channels in removed_channels(decisions):
        # A fused projection has a share in queries, in keys and in values; what is read behind a
        # concatenation has one in every group.
        shares[member.layer, member.role, member.parameter].append(channels)
        last[member.layer] = decision
    for (name, role, parameter), parts in shares.items():
        layer, gone = model.get_submodule(name), torch.cat(parts)
        if parameter is not None:
            along = next(axis for axis, n in enumerate(getattr(layer, parameter).shape) if n > 1)
            _drop(layer, parameter, gone, along)
        elif role == "consumer":
            _slice_inputs(name, layer, gone)
        elif role == "producer":
            _slice_outputs(name, layer, gone)
        else:
            _slice_carrier(name, layer, gone, last[name])


def _drop(layer: nn.Module, name: str, gone: Tensor, axis: int) -> int:
    """Take rows or columns out of a parameter or buffer, if the layer has it; returns how many stay."""
    tensor = getattr(layer, name)
    if tensor is None:
        return 0
    kept = removed(gone, tensor.shape[axis]).to(tensor.device)
    fresh = tensor.detach().index_select(axis, kept).contiguous()
    if isinstance(tensor, nn.Parameter):
        fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
    setattr(layer, name, fresh)
    return len(kept)


def _slice_outputs(name: str, layer: nn.Module, gone: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features = _drop(layer, "weight", gone, 0)
    elif is_convolution(layer) and layer.groups == 1:
        layer.out_channels = _drop(layer, "weight", gone, 0)
    elif is_transposed(layer):
        layer.nf = _drop(layer, "weight", gone, 1)  # type: ignore[assignment]
    else:
        raise UserError(f"layer '{name}': outputs of a {type(layer).__name__} cannot be sliced")
    _drop(layer, "bias", gone, 0)


def _slice_inputs(name: str, layer: nn.Module, gone: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.in_features = _drop(layer, "weight", gone, 1)
    elif is_convolution(layer) and layer.groups == 1:
        layer.in_channels = _drop(layer, "weight", gone, 1)
    elif is_transposed(layer):
        layer.nx = _drop(layer, "weight", gone, 0)  # type: ignore[assignment]
    else:
        raise UserError(f"layer '{name}': inputs of a {type(layer).__name__} cannot be sliced")


def slice_passing(layer: nn.Module, gone: Tensor) -> bool:
    """Take channels out of a norm, a grouped convolution or a PReLU, in place.

    Args:
        layer: any layer.
        gone: its channels to remove, ``[R]``.

    Returns:
        Whether it is one of them.
    """
    if is_convolution(layer):
        block = layer.out_channels // layer.groups
        blocks, each = layer.groups - len(gone) // block, layer.in_channels // layer.groups
        layer.out_channels = _drop(layer, "weight", gone, 0)
        layer.groups, layer.in_channels = blocks, blocks * each
        _drop(layer, "bias", gone, 0)
        return True
    norm = norm_of(layer)
    count = norm.channels(layer) if norm else None
    if norm is not None and count is not None:  # of a PReLU with one slope for all there is nothing to take
        left = count - len(gone)
        for vector in norm.vectors:
            if getattr(layer, vector, None) is not None:
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
    if family is None:
        return
    for parameter in family.parameters:
        _drop(layer, parameter, gone, -1)
    for attribute in family.scaled:
        setattr(layer, attribute, getattr(layer, attribute) * len(decision.kept) // decision.size)
