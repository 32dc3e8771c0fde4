"""Scores of units that are read off the weights alone.

Where a group has several producers or batch norms, a unit's score is the sum over them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune.units import ChannelGroup


def _filters(model: nn.Module, group: ChannelGroup) -> list[Tensor]:
    """The producers' weights, a row a unit: ``[U, …]`` float64 each."""
    rows = []
    for member in group.of_role("producer"):
        weight = model.get_submodule(member.layer).get_parameter("weight").detach().double().cpu()
        rows.append(weight[member.offset : member.offset + group.size].flatten(1))
    return rows


def l1_norm(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Sum of the absolute weights of every unit, ``[U]`` (Li et al. 2017, arXiv 1608.08710)."""
    return torch.stack([w.abs().sum(1) for w in _filters(model, group)]).sum(0)


def geometric_median_distance(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Sum of Euclidean distances to all other filters, ``[U]`` (FPGM, He et al. 2019, arXiv 1811.00250).

    A filter near the geometric median of its layer can be replaced by the others.
    """
    exact = "donot_use_mm_for_euclid_dist"
    return torch.stack([torch.cdist(w, w, compute_mode=exact).sum(1) for w in _filters(model, group)]).sum(0)


def bn_scale(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Absolute scale of the batch norm behind every unit, ``[U]`` (Liu et al. 2017, arXiv 1708.06519).

    Empty when the group passes no batch norm with a scale.
    """
    scales = []
    for member in group.of_role("carrier"):
        module = model.get_submodule(member.layer)
        if isinstance(module, _BatchNorm) and module.affine and member.span == 1:
            gamma = module.weight.detach().double().cpu()
            scales.append(gamma[member.offset : member.offset + group.size].abs())
    return torch.stack(scales).sum(0) if scales else torch.empty(0, dtype=torch.float64)


SCORES: dict[str, Callable[[nn.Module, ChannelGroup], Tensor]] = {
    "l1_norm": l1_norm,
    "geometric_median": geometric_median_distance,
    "bn_scale": bn_scale,
}
