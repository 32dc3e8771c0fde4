"""Which channels, or columns of a matrix, belong to which units: the one place that counts them out.

Shapes: ``U`` units, ``K`` some of them, ``R`` removed ones, ``S`` channels of a unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from coprune.plan import GroupDecision, Member


def columns_of(units: Tensor, each: int) -> Tensor:
    """The columns of a unit-major matrix that belong to some units.

    Args:
        units: ``[K]`` int64.
        each: columns of a unit, ``S``.

    Returns:
        ``[K · S]`` int64, in the units' order.
    """
    return (units.unsqueeze(1) * each + torch.arange(each, device=units.device)).flatten()


def in_blocks(units: Tensor, size: int, total: int) -> Tensor:
    """Units ``[K]`` of every block of ``size`` among ``total`` rows, which gates or directions have each."""
    return (torch.arange(total // size).unsqueeze(1) * size + units).flatten()


def channel_indices(member: Member, units: Tensor) -> Tensor:
    """The channels of a layer that belong to the given units.

    Args:
        member: the layer's share in the group.
        units: indices ``[K]`` int64.

    Returns:
        Channel indices ``[K · span]`` int64, in the units' order.
    """
    if member.channels:
        return torch.tensor(member.channels).view(-1, member.span)[units].flatten()
    return member.offset + columns_of(units, member.span)


def removed(kept: Sequence[int] | Tensor, size: int) -> Tensor:
    """What is not kept of ``size`` units (or channels), sorted, ``[R]`` int64; its own inverse.

    Args:
        kept: indices below ``size`` in any order.
        size: ``U``.
    """
    gone = torch.ones(size, dtype=torch.bool)
    gone[torch.as_tensor(kept, dtype=torch.int64, device="cpu")] = False
    return gone.nonzero().flatten()


def removed_channels(decisions: Iterable[GroupDecision]) -> Iterator[tuple[GroupDecision, Member, Tensor]]:
    """Every member of every group that loses units, with the channels of its layer that go, ``[R · S]``."""
    for decision in decisions:
        gone = removed(decision.kept, decision.size)
        if len(gone):
            for member in decision.members:
                yield decision, member, channel_indices(member, gone)
