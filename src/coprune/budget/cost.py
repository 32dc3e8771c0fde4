"""What a model costs as a function of how many units each group keeps.

Shapes: ``L`` layers (weights and biases apart), ``G`` groups.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from coprune.budget.request import Quantity as Quantity
from coprune.errors import UserError
from coprune.groups.group import ChannelGroup
from coprune.layers import filters, is_convolution, is_linear, is_recurrent
from coprune.measure.macs import LayerCost, layer_costs
from coprune.surgery import cut
from coprune.tracing.forward import Inputs

_COUNTS = 0.005  # share of the MACs from which products outside of layers are looked into

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerShare:
    """What one layer costs (its weights, or its biases), and which groups scale it.

    Attributes:
        macs, params: at full size.
        output, input: group → what part of the layer's output and input channels belongs to it, in (0, 1];
            the rest is fixed.
    """

    layer: str
    macs: int
    params: int
    output: Mapping[str, float] = field(default_factory=dict)
    input: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CostModel:
    """MACs and parameters as a function of how many units each group keeps.

    A layer costs in proportion to the kept shares of its input and of its output channels. Behind a
    concatenation a share is the sum of several groups' parts. Biases are an entry of their own, which no
    input scales. Of a group's own count the cost is a polynomial of degree 2 at most: a layer may read and
    write the same stream.

    Attributes:
        layers: every layer's own cost.
        sizes: group → units.
        ties: group → the name of those that keep as many units as it does; others are free.
    """

    layers: tuple[LayerShare, ...]
    sizes: Mapping[str, int]
    ties: Mapping[str, str] = field(default_factory=dict)

    def total(self, counts: Mapping[str, int], quantity: Quantity = "macs") -> float:
        """MACs (or parameters) when group g keeps ``counts[g]`` units (groups not named keep all)."""
        reads, writes = self._kept(counts)
        return float(self._costs[quantity] @ (reads * writes))

    def ratio(self, counts: Mapping[str, int], quantity: Quantity = "macs") -> float:
        """MACs (or parameters) of the pruned model over those of the unpruned one."""
        return self.total(counts, quantity) / self._all[quantity]

    def tied(self) -> CostModel:
        """The same cost of fewer numbers: tied groups are one, under the name of what ties them."""

        def summed(parts: Mapping[str, float]) -> dict[str, float]:
            found: dict[str, float] = {}
            for group, part in parts.items():
                if group in self.sizes:
                    name = self.ties.get(group, group)
                    found[name] = found.get(name, 0.0) + part
            return found

        sizes = {self.ties.get(group, group): size for group, size in self.sizes.items()}
        layers = (replace(one, output=summed(one.output), input=summed(one.input)) for one in self.layers)
        return CostModel(tuple(layers), sizes) if self.ties else self

    def by_layer(self, counts: Mapping[str, int], quantity: Quantity = "macs") -> dict[str, float]:
        """What share of :meth:`ratio` each layer is, largest first."""
        reads, writes = self._kept(counts)
        shares = self._costs[quantity] * reads * writes / self._all[quantity]
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
        column, size = list(self.sizes).index(group), self.sizes[group]
        reads, writes = (part[:, column] / size for part in self._parts)
        cost = self._costs[quantity] / self._all[quantity]
        linear = cost @ (reads * kept_writes + writes * kept_reads)
        return float(linear), float(cost @ (reads * writes))

    def _kept(self, counts: Mapping[str, int]) -> tuple[_Floats, _Floats]:
        """What part of every layer's input and output stays, ``[L]`` each."""
        gone = np.array([1 - counts.get(group, size) / size for group, size in self.sizes.items()])
        reads, writes = self._parts
        return 1.0 - reads @ gone, 1.0 - writes @ gone

    @cached_property
    def _parts(self) -> _Floats:
        """What part of every layer's input, and of its output, is each group's, ``[2, L, G]``."""
        sides = ([layer.input for layer in self.layers], [layer.output for layer in self.layers])
        parts = [side.get(group, 0.0) for layers in sides for side in layers for group in self.sizes]
        return np.array(parts, dtype=float).reshape(2, len(self.layers), len(self.sizes))

    @cached_property
    def _costs(self) -> dict[Quantity, _Floats]:
        """What every layer costs at full size, ``[L]``."""
        return {q: np.array([getattr(one, q) for one in self.layers], float) for q in get_args(Quantity)}

    @cached_property
    def _all(self) -> dict[Quantity, float]:
        """What the unpruned model costs."""
        return {quantity: float(costs.sum()) for quantity, costs in self._costs.items()}


def _recurring(layer: nn.Module) -> float:
    """What share of a layer's weights reads its own hidden units; 0 of layers that are not recurrent."""
    if not is_recurrent(layer):
        return 0.0
    weights = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
    return 1.0 - filters(layer).numel() / weights


def _outside(
    model: nn.Module,
    example: Inputs,
    groups: Sequence[ChannelGroup],
    costs: Sequence[LayerCost],
    known: Collection[str],
) -> dict[str, dict[str, float]]:
    """Which groups scale the products that a module computes outside of layers: each is halved once.

    Args:
        model: unpruned.
        example: one sample.
        groups: those that may lose units.
        costs: of the unpruned model.
        known: modules whose groups are known.

    Returns:
        Module → group → share.
    """
    free = {c.name: c.macs for c in costs if c.macs and c.name not in known}
    modules = {name: model.get_submodule(name) for name in free}
    free = {n: free[n] for n, m in modules.items() if not is_convolution(m) and not is_linear(m)}
    found: dict[str, dict[str, float]] = {name: {} for name in free}
    if sum(free.values()) < _COUNTS * sum(cost.macs for cost in costs):
        return found
    for group in (g for g in groups if g.kind in ("inner", "coupled") and g.size > 1):
        half = group.size // 2
        try:
            left = layer_costs(cut(model, (group.decision(range(half), "half"),)), example)
        except UserError:
            continue
        now = {cost.name: cost.macs for cost in left}
        for name, macs in free.items():
            share = (1 - now.get(name, macs) / macs) / (1 - half / group.size)
            if share > _COUNTS:
                found[name][group.name] = min(1.0, share)
    return found


def cost_model(
    model: nn.Module, example: Inputs, groups: Sequence[ChannelGroup], *, uniform: bool = False
) -> CostModel:
    """What each layer costs and which groups scale it.

    The products of queries, keys and values are an attention module's own cost, and its heads' group
    scales them. What other products outside of layers (a graph's, of feature maps) depend on is measured.

    Args:
        model: unpruned.
        example: one sample ``[1, …]``.
        groups: the groups that may lose units.
        uniform: groups of one kind and size keep the same number of units.
    """
    makes: dict[str, dict[str, float]] = {}
    reads: dict[str, dict[str, float]] = {}
    for group in groups:
        for member in group.members:
            side = (reads if member.role == "consumer" else makes).setdefault(member.layer, {})
            # Members without a width own all channels of their layer, the parts of a fused one together.
            part = 1.0 if member.width is None else group.size * member.span / member.width
            side[group.name] = min(1.0, side.get(group.name, 0.0) + part)
    costs = layer_costs(model, example)
    layers: list[LayerShare] = []
    makes.update(_outside(model, example, groups, costs, {*makes, *reads}))
    for cost in costs:
        made, read = makes.get(cost.name, {}), reads.get(cost.name, {})
        module = model.get_submodule(cost.name)
        # A bias has as many entries whatever the layer reads.
        biases = sum(p.numel() for p in module.parameters(recurse=False) if p.ndim == 1) if read else 0
        weights, again = cost.params - biases, _recurring(module) if made else 0.0
        # What hidden units make of hidden units shrinks with both.
        whole = LayerShare(cost.name, round(again * cost.macs), round(again * weights), made, made)
        rest = LayerShare(cost.name, cost.macs - whole.macs, weights - whole.params, made, read)
        shares = (whole, rest, LayerShare(cost.name, 0, biases, made))
        layers.extend(share for share in shares if share.macs or share.params > 0)
    ties = {g.name: f"{g.kind} of {g.size}" for g in groups} if uniform else {}
    return CostModel(tuple(layers), {g.name: g.size for g in groups}, ties)
