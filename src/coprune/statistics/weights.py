"""Scores of units that are read off the weights alone.

Where a group has several producers, a unit's score is the sum over them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from coprune.groups import ChannelGroup
from coprune.layers import filters


def _filters(model: nn.Module, group: ChannelGroup) -> list[Tensor]:
    """The producers' weights, a row a unit: ``[U, …]`` float64 each."""
    rows = []
    for layer, channels in group.channels("producer").items():
        weight = filters(model.get_submodule(layer)).detach().double().cpu()
        rows.append(weight[channels.flatten()].reshape(group.size, -1))
    return rows


def l1_norm(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Sum of the absolute weights of every unit, ``[U]`` (Li et al. 2017, arXiv 1608.08710)."""
    return torch.stack([w.abs().sum(1) for w in _filters(model, group)]).sum(0)


SCORES: dict[str, Callable[[nn.Module, ChannelGroup], Tensor]] = {"l1_norm": l1_norm}
