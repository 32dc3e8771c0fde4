"""A group of units: what can only be removed together.

A *unit* of a channel group is one output channel of its producers, with everything that depends on
it: the batch-norm entries it passes and the input channels of the layers that read it. In a transformer
a unit is an attention head (rows of the query, key and value projections, columns of the output
projection) or a neuron of a feed-forward block. The group's members say which of their channels belong
to which unit (:class:`coprune.plan.Member`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coprune.groups.columns import channel_indices
from coprune.layers import is_linear
from coprune.plan import Member, Skipped

Quantity = Literal["macs", "params"]
"""What a model can be too large in."""

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are kept or removed together.

    Attributes:
        name: module name of the first producer; of heads, that of the attention module. Where a
            producer's channels make several groups, ``#2`` and so on are appended.
        size: number of units ``U``.
        members: the layers involved.
        kind: ``inner``: one producer, read by dense layers only, with nothing but channel-by-channel
            layers (batch norm, depthwise) in between. ``coupled``: several producers (a residual
            sum, squeeze-and-excite), blocks of a grouped convolution, a norm over channels, or parts of
            a concatenation. ``heads``: those of an attention
            module, or of several that share something a head; with grouped queries a unit is a
            key/value head with its queries. ``neurons``: those of a feed-forward block.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    kind: Literal["inner", "coupled", "heads", "neurons"]

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


@dataclass(frozen=True)
class Units:
    """What can be removed from a model, and what cannot, with the reason."""

    groups: tuple[ChannelGroup, ...]
    skipped: tuple[Skipped, ...]


def unit_axis(layer: nn.Module) -> int:
    """The axis of a layer's input and output that its channels lie on: last for linear layers."""
    return -1 if is_linear(layer) else 1


@dataclass(frozen=True)
class Share:
    """What part of a layer's input or output channels belongs to a group, in (0, 1]."""

    group: str
    part: float = 1.0


@dataclass(frozen=True)
class LayerShare:
    """What one layer costs (its weights, or its biases), and which groups scale it.

    Attributes:
        macs, params: at full size.
        output, input: the groups that its output and input channels belong to; the rest is fixed.
    """

    layer: str
    macs: int
    params: int
    output: tuple[Share, ...] = ()
    input: tuple[Share, ...] = ()


@dataclass(frozen=True)
class CostModel:
    """MACs and parameters as a function of how many units each group keeps.

    A layer costs in proportion to the kept shares of its input and of its output channels. Behind a
    concatenation a share is the sum of several groups' parts. Biases are an entry of their own, which no
    input scales. Of a group's own count the cost is a polynomial of degree 2 at most: a layer may read and
    write the same stream.
    """

    layers: tuple[LayerShare, ...]
    sizes: Mapping[str, int]

    def macs(self, counts: Mapping[str, int]) -> float:
        """MACs when group g keeps ``counts[g]`` units (groups not named keep all)."""
        return self._total(counts, "macs")

    def params(self, counts: Mapping[str, int]) -> float:
        """Parameters, likewise."""
        return self._total(counts, "params")

    def _total(self, counts: Mapping[str, int], quantity: Quantity) -> float:
        reads, writes = self._kept(counts)
        return float(self._parts[2][quantity] @ (reads * writes))

    def _kept(self, counts: Mapping[str, int]) -> tuple[_Floats, _Floats]:
        """What part of every layer's input and output stays, ``[L]`` each."""
        gone = np.array([1 - counts.get(group, size) / size for group, size in self.sizes.items()])
        reads, writes, _ = self._parts
        return 1.0 - reads @ gone, 1.0 - writes @ gone

    @cached_property
    def _parts(self) -> tuple[_Floats, _Floats, dict[Quantity, _Floats]]:
        """What part of every layer's input and output is each group's, ``[L, G]``; what it costs, ``[L]``."""
        at = self._columns
        reads, writes = (np.zeros((len(self.layers), len(at))) for _ in range(2))
        for row, layer in enumerate(self.layers):
            for table, shares in ((reads, layer.input), (writes, layer.output)):
                for share in shares:
                    if share.group in at:
                        table[row, at[share.group]] += share.part
        costs: dict[Quantity, _Floats] = {
            "macs": np.array([layer.macs for layer in self.layers], dtype=float),
            "params": np.array([layer.params for layer in self.layers], dtype=float),
        }
        return reads, writes, costs

    @property
    def full(self) -> int:
        """MACs of the unpruned model."""
        return sum(layer.macs for layer in self.layers)

    def ratio(self, counts: Mapping[str, int], quantity: Quantity = "macs") -> float:
        """MACs (or parameters) of the pruned model over those of the unpruned one."""
        return self._total(counts, quantity) / self._all[quantity]

    def by_layer(self, counts: Mapping[str, int], quantity: Quantity = "macs") -> dict[str, float]:
        """What share of :meth:`ratio` each layer is, largest first."""
        reads, writes = self._kept(counts)
        shares = self._parts[2][quantity] * reads * writes / self._all[quantity]
        found: dict[str, float] = {}
        for layer, share in zip(self.layers, shares, strict=True):
            found[layer.layer] = found.get(layer.layer, 0.0) + float(share)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def slope(
        self, counts: Mapping[str, int], group: str, quantity: Quantity = "macs"
    ) -> tuple[float, float]:
        """How :meth:`ratio` changes when one group's count alone changes.

        Args:
            counts: of all groups.
            group: whose count changes, from k to k + d.
            quantity: of the cost.

        Returns:
            ``(a, b)``, with which it changes by ``a·d + b·d²``: a layer's cost is the product of two
            shares that are linear in d.
        """
        kept_reads, kept_writes = self._kept(counts)
        reads, writes, costs = self._parts
        column, size = self._columns[group], self.sizes[group]
        reads, writes = reads[:, column] / size, writes[:, column] / size
        cost = costs[quantity] / self._all[quantity]
        linear = cost @ (reads * kept_writes + writes * kept_reads)
        return float(linear), float(cost @ (reads * writes))

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {group: column for column, group in enumerate(self.sizes)}

    @cached_property
    def _all(self) -> dict[Quantity, int]:
        """What the unpruned model costs."""
        return {"macs": self.full, "params": sum(layer.params for layer in self.layers)}
