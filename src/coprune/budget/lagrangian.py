"""Spend a budget where it costs least: one global choice of k for every group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Cost = Callable[[Mapping[str, int]], float]
Slope = Callable[[Mapping[str, int], str], tuple[float, float]]

_BISECTIONS = 40
"""Of the price, over 120 powers of 2: it is then known to a part in 10¹⁰."""

_SWEEPS = 20


def spend(
    curves: Mapping[str, Tensor],
    cost: Cost,
    target: float,
    *,
    slope: Slope | None = None,
    allowed: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, int]:
    """The counts that lose least, by their curves, at no more than a target cost.

    Minimises Σ curve_g(k_g) + μ · cost(k) group by group until nothing changes, with μ found by
    bisection; then single units are added, those that gain most for their cost first, as long as
    they fit. A group's cost is a polynomial of degree 2 at most in its own k, as MACs and parameters are:
    linear, but for layers that read and write the same stream.

    Args:
        curves: group → ``[U + 1]``, the loss when k are kept.
        cost: of counts, in any unit.
        target: the most it may come to; the least that is allowed of every group must fit.
        slope: of counts and a group: ``(a, b)``, when its own count alone grows by d, the cost grows by
            ``a·d + b·d²``. Found by asking ``cost`` three times when not given.
        allowed: counts that a group may have, rising, the last one all; any from 1 on when not given.

    Returns:
        Group → k, at least 1.
    """
    full = {name: len(curve) - 1 for name, curve in curves.items()}
    ways = {name: torch.tensor((allowed or {}).get(name, range(1, size + 1))) for name, size in full.items()}
    if cost(full) <= target:
        return full
    # So small a budget that the search finds nothing else leaves one unit a group.
    low, high, found = -60.0, 60.0, {name: int(way[0]) for name, way in ways.items()}
    slope = slope or _asked(cost)
    counts = full
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        counts = _settle(curves, slope, 2.0**middle, ways, start=full)
        if cost(counts) <= target:
            high = middle
            if cost(counts) >= cost(found):
                found = counts
        else:
            low = middle
    return _fill(found, curves, cost, target, ways)


def _asked(cost: Cost) -> Slope:
    """The slopes of any cost: through three counts there is one polynomial of degree 2."""

    def slope(counts: Mapping[str, int], group: str) -> tuple[float, float]:
        k = counts[group]
        now, one, two = (cost({**counts, group: k + d}) for d in range(3))
        bend = (two - 2 * one + now) / 2
        return one - now - bend, bend

    return slope


def _settle(
    curves: Mapping[str, Tensor],
    slope: Slope,
    price: float,
    ways: Mapping[str, Tensor],
    *,
    start: Mapping[str, int],
) -> dict[str, int]:
    counts = dict(start)
    for _ in range(_SWEEPS):
        before = dict(counts)
        for name, curve in curves.items():
            way = ways[name]
            if len(way) > 1:
                a, b = slope(counts, name)
                more = way.double() - counts[name]
                counts[name] = int(way[(curve[way] + price * more * (a + b * more)).argmin()])
        if counts == before:
            break
    return counts


def _fill(
    counts: dict[str, int],
    curves: Mapping[str, Tensor],
    cost: Cost,
    target: float,
    ways: Mapping[str, Tensor],
) -> dict[str, int]:
    while True:
        now = cost(counts)
        best: tuple[float, str, int] | None = None
        for name, curve in curves.items():
            k = counts[name]
            if k >= len(curve) - 1:
                continue
            next_k = int(ways[name][ways[name] > k][0])
            more = cost({**counts, name: next_k}) - now
            if now + more > target:
                continue
            gain = float(curve[k] - curve[next_k]) / max(more, 1e-30)
            if best is None or gain > best[0]:
                best = (gain, name, next_k)
        if best is None:
            return counts
        counts = {**counts, best[1]: best[2]}
