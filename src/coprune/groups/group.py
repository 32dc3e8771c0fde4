"""A group of units: what can only be removed together.

A *unit* of a channel group is one output channel of its producers, with everything that depends on
it: the batch-norm entries it passes and the input channels of the layers that read it. In a transformer
a unit is an attention head (rows of the query, key and value projections, columns of the output
projection) or a neuron of a feed-forward block. The group's members say which of their channels belong
to which unit (:class:`coprune.plan.Member`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coprune.groups.columns import channel_indices
from coprune.layers import is_linear
from coprune.plan import GroupDecision, Member, Skipped


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are kept or removed together.

    Attributes:
        name: module name of the first producer; of heads, that of the attention module. Where a
            producer's channels make several groups, ``#2`` and so on are appended.
        size: number of units ``U``.
        members: the layers involved.
        kind: ``inner``: one producer, or several whose channels are multiplied (squeeze-and-excite, gates),
            read by dense layers only, with nothing but channel-by-channel layers (batch norm, depthwise) in
            between. ``coupled``: a residual sum, blocks of a grouped convolution, a norm over channels, or
            parts of a concatenation. ``heads``: those of an attention
            module, or of several that share something a head; with grouped queries a unit is a
            key/value head with its queries. ``neurons``: those of a feed-forward block.
        tried: heads or neurons found by the names of layers alone, which must be verified.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    kind: Literal["inner", "coupled", "heads", "neurons"]
    tried: bool = False

    @property
    def own(self) -> set[str]:
        """The layers that make or carry the units."""
        return {m.layer for m in self.members if m.role != "consumer"}

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers that make the units."""
        return tuple(m.layer for m in self.of_role("producer"))

    def of_role(self, role: str) -> tuple[Member, ...]:
        """The members with a role."""
        return tuple(m for m in self.members if m.role == role)

    def channels(self, role: str) -> dict[str, Tensor]:
        """Layer → the channels of every unit, ``[U, S]`` int64, of all its members with a role."""
        found: dict[str, list[Tensor]] = {}
        every = torch.arange(self.size)
        for member in self.of_role(role):
            if member.parameter is None:
                part = channel_indices(member, every).view(self.size, -1)
                found.setdefault(member.layer, []).append(part)
        return {layer: torch.cat(parts, 1) for layer, parts in found.items()}

    def decision(self, kept: Iterable[int], reason: str, **more: Any) -> GroupDecision:
        """What happens to the group when some units stay; ``more`` are further fields of the decision."""
        return GroupDecision(
            name=self.name,
            members=self.members,
            size=self.size,
            kept=tuple(sorted(kept)),
            reason=reason,
            **more,
        )


@dataclass(frozen=True)
class Units:
    """What can be removed from a model, and what cannot, with the reason."""

    groups: tuple[ChannelGroup, ...]
    skipped: tuple[Skipped, ...]


def unit_axis(layer: nn.Module) -> int:
    """The axis of a layer's input and output that its channels lie on: last for linear layers."""
    return -1 if is_linear(layer) else 1
