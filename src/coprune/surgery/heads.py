"""Cut attention heads and feed-forward neurons: slice the layers that a decision's members name.

No graph is traced: members say which rows and columns belong to which unit
(:mod:`coprune.units.attention`), and every module may keep another number of heads or neurons.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.plan import GroupDecision, Member
from coprune.units import channel_indices
from coprune.units.attention import attention_family, transformer_groups

TABLES = ("relative_position_bias_table",)
"""Parameters ``[places, heads]`` of modules that are no layers of PyTorch (BEiT, Swin)."""


def is_sliced(model: nn.Module, decisions: Sequence[GroupDecision]) -> list[bool]:
    """Which decisions are about heads or neurons of a transformer, and not about traced channels."""
    names = {group.name for group in transformer_groups(model)}
    return [decision.name in names for decision in decisions]


def slice_units(model: nn.Module, decisions: Sequence[GroupDecision]) -> None:
    """Remove the heads and neurons that were not kept, in place.

    Args:
        model: a transformer that the decisions fit.
        decisions: about groups of heads or neurons.

    Raises:
        UserError: a member's layer is of a type that cannot be sliced.
    """
    for decision in decisions:
        removed = torch.tensor(sorted(set(range(decision.size)) - set(decision.kept)), dtype=torch.int64)
        if not len(removed):
            continue
        shares: dict[tuple[str, str], list[Member]] = defaultdict(list)
        for member in decision.members:
            shares[member.layer, member.role].append(member)
        for (name, role), members in shares.items():
            layer = model.get_submodule(name)
            # A fused projection has a share in queries, in keys and in values.
            gone = torch.cat([channel_indices(m, removed) for m in members])
            if role == "consumer":
                _slice_inputs(name, layer, gone)
            elif role == "producer":
                _slice_outputs(name, layer, gone)
            else:
                _slice_carrier(name, layer, gone, decision)


def _drop(layer: nn.Module, name: str, gone: Tensor, axis: int) -> int:
    """Take rows or columns out of a layer's parameter, if it has it; returns how many stay."""
    parameter = getattr(layer, name)
    if parameter is None:
        return 0
    stays = torch.ones(parameter.shape[axis], dtype=torch.bool)
    stays[gone] = False
    kept = stays.nonzero().flatten().to(parameter.device)
    fresh = parameter.detach().index_select(axis, kept).contiguous()
    setattr(layer, name, nn.Parameter(fresh, requires_grad=parameter.requires_grad))
    return len(kept)


def _slice_outputs(name: str, layer: nn.Module, gone: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features = _drop(layer, "weight", gone, 0)
    elif type(layer).__name__ == "Conv1D":  # 🤗's, with a weight [input, output]
        layer.nf = _drop(layer, "weight", gone, 1)  # type: ignore[assignment]
    else:
        raise UserError(f"layer '{name}': outputs of a {type(layer).__name__} cannot be sliced")
    _drop(layer, "bias", gone, 0)


def _slice_inputs(name: str, layer: nn.Module, gone: Tensor) -> None:
    if isinstance(layer, nn.Linear):
        layer.in_features = _drop(layer, "weight", gone, 1)
    elif type(layer).__name__ == "Conv1D":
        layer.nx = _drop(layer, "weight", gone, 0)  # type: ignore[assignment]
    else:
        raise UserError(f"layer '{name}': inputs of a {type(layer).__name__} cannot be sliced")


def _slice_carrier(name: str, layer: nn.Module, gone: Tensor, decision: GroupDecision) -> None:
    """A table with a column a head, or the attention module itself: its counts and own parameters."""
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
