"""Spend a budget where it costs least: one global choice of k for every group."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Cost = Callable[[Mapping[str, int]], float]

_BISECTIONS = 60
_SWEEPS = 20


def spend(curves: Mapping[str, Tensor], cost: Cost, target: float) -> dict[str, int]:
    """The counts that lose least, by their curves, at no more than a target cost.

    Minimises Σ curve_g(k_g) + μ · cost(k) group by group until nothing changes, with μ found by
    bisection; then single units are added, those that gain most for their cost first, as long as
    they fit. A group's cost is linear in its own k, as MACs and parameters of a layer are.

    Args:
        curves: group → ``[U + 1]``, the loss when k are kept.
        cost: of counts, in any unit.
        target: the most it may come to; one unit a group must fit.

    Returns:
        Group → k, at least 1.
    """
    full = {name: len(curve) - 1 for name, curve in curves.items()}
    if cost(full) <= target:
        return full
    # So small a budget that the search finds nothing else leaves one unit a group.
    low, high, found = -60.0, 60.0, dict.fromkeys(full, 1)
    counts = full
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        counts = _settle(curves, cost, 2.0**middle, start=full)
        if cost(counts) <= target:
            high = middle
            if cost(counts) >= cost(found):
                found = counts
        else:
            low = middle
    return _fill(found, curves, cost, target)


def _slope(name: str, counts: Mapping[str, int], cost: Cost) -> float:
    return cost({**counts, name: 2}) - cost({**counts, name: 1})


def _settle(
    curves: Mapping[str, Tensor], cost: Cost, price: float, *, start: Mapping[str, int]
) -> dict[str, int]:
    counts = dict(start)
    for _ in range(_SWEEPS):
        before = dict(counts)
        for name, curve in curves.items():
            if len(curve) < 3:
                continue
            units = torch.arange(1, len(curve), dtype=torch.float64)
            counts[name] = 1 + int((curve[1:] + price * _slope(name, counts, cost) * units).argmin())
        if counts == before:
            break
    return counts


def _fill(counts: dict[str, int], curves: Mapping[str, Tensor], cost: Cost, target: float) -> dict[str, int]:
    while True:
        now = cost(counts)
        best: tuple[float, str] | None = None
        for name, curve in curves.items():
            k = counts[name]
            if k >= len(curve) - 1:
                continue
            more = cost({**counts, name: k + 1}) - now
            if now + more > target:
                continue
            gain = float(curve[k] - curve[k + 1]) / max(more, 1e-30)
            if best is None or gain > best[0]:
                best = (gain, name)
        if best is None:
            return counts
        counts = {**counts, best[1]: counts[best[1]] + 1}
