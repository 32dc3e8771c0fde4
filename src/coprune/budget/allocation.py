"""How many units each group keeps under one limit: the same share of all, or where it loses least.

Both ways find one number for all groups by bisection, the common share or the price of a unit of cost, and
then add the units that are worth most as long as they fit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from coprune.budget.cost import CostModel, Quantity
from coprune.budget.counts import allowed_counts, check_reachable

Counts = Mapping[str, int]
Cost = Callable[[Counts], float]
Slope = Callable[[Counts, str], tuple[float, float]]
Ways = Mapping[str, Sequence[int]]
"""The counts that each group may have, rising; the last is all."""

_SWEEPS = 20


def uniform_allocation(
    cost: CostModel,
    target: float,
    *,
    shares: Mapping[str, float] | None = None,
    quantity: Quantity = "macs",
    round_to: int = 1,
) -> dict[str, int]:
    """Largest counts whose MACs (or parameters) stay within a share of the full model's.

    All groups keep the same share of their units, or shares in the given proportion; where rounding took
    most, single units are added. So the result comes as close to the target as one unit allows.

    Args:
        cost: the cost model.
        target: share of the quantity in (0, 1].
        shares: relative share of each group, e.g. what a knee kept; None is the same for all.
        quantity: what is limited.
        round_to: see :func:`coprune.budget.counts.allowed_counts`.

    Raises:
        OutOfReachError: even the least of every group costs more than the target.
    """
    check_reachable(cost, target, quantity=quantity, round_to=round_to)
    ways = {group: allowed_counts(size, round_to) for group, size in cost.sizes.items()}
    if not ways:
        return {}
    relative = {group: (shares or {}).get(group, 1.0) for group in ways}

    def wanted(share: float) -> dict[str, float]:
        return {g: min(max(share * relative[g] * way[-1], way[0]), way[-1]) for g, way in ways.items()}

    def counts(share: float) -> dict[str, int]:
        return {g: ways[g][bisect_right(ways[g], k + 1e-9) - 1] for g, k in wanted(share).items()}

    ratio = partial(cost.ratio, quantity=quantity)
    found, end = _most(counts, ratio, target, ways, within=(0.0, 1.0 / min(relative.values())), steps=60)
    most = wanted(end)
    return _filled(found, ways, ratio, target, worth=lambda group, k, _, __: most[group] - k)


def lagrangian_allocation(
    curves: Mapping[str, Tensor], cost: Cost, target: float, *, slope: Slope, ways: Ways
) -> dict[str, int]:
    """The counts that lose least, by their curves, at no more than a target cost.

    Minimises Σ curve_g(k_g) + μ · cost(k) group by group until nothing changes, with μ found by bisection
    over 120 powers of 2, to a part in 10¹⁰; then those units are added that gain most for their cost. A
    group's cost is a polynomial of degree 2 at most in its own k, as MACs and parameters are: linear, but for
    layers that read and write the same stream.

    Args:
        curves: group → ``[U + 1]``, the loss when k are kept.
        cost: of counts, in any unit.
        target: the most it may come to; the least that is allowed of every group must fit.
        slope: of counts and a group: ``(a, b)``, when its own count alone grows by d, the cost grows by
            ``a·d + b·d²``.
        ways: what each group may keep.

    Returns:
        Group → k.
    """
    full = {group: way[-1] for group, way in ways.items()}
    if cost(full) <= target:
        return full
    tables = {group: torch.tensor(way) for group, way in ways.items()}

    def counts(power: float) -> dict[str, int]:
        return _settled(curves, slope, 2.0**-power, tables, start=full)

    def worth(group: str, k: int, more: int, price: float) -> float:
        return float(curves[group][k] - curves[group][more]) / max(price, 1e-30)

    found, _ = _most(counts, cost, target, ways, within=(-60.0, 60.0), steps=40)
    return _filled(found, ways, cost, target, worth=worth)


def _most(
    counts: Callable[[float], dict[str, int]],
    cost: Cost,
    target: float,
    ways: Ways,
    *,
    within: tuple[float, float],
    steps: int,
) -> tuple[dict[str, int], float]:
    """The costliest counts met in a bisection that fit, or the least; and the number above which none did."""
    low, high = within
    found = {group: way[0] for group, way in ways.items()}
    spent = cost(found)
    for _ in range(steps):
        middle = (low + high) / 2
        tried = counts(middle)
        now = cost(tried)
        low, high = (middle, high) if now <= target else (low, middle)
        if spent <= now <= target:
            found, spent = tried, now
    return found, high


def _settled(
    curves: Mapping[str, Tensor],
    slope: Slope,
    price: float,
    tables: Mapping[str, Tensor],
    *,
    start: dict[str, int],
) -> dict[str, int]:
    """The counts at a price of cost, from which no group alone would move."""
    counts = dict(start)
    for _ in range(_SWEEPS):
        before = dict(counts)
        for group, table in tables.items():
            if len(table) > 1:
                a, b = slope(counts, group)
                more = table.double() - counts[group]
                counts[group] = int(table[(curves[group][table] + price * more * (a + b * more)).argmin()])
        if counts == before:
            break
    return counts


def _filled(
    counts: dict[str, int],
    ways: Ways,
    cost: Cost,
    target: float,
    *,
    worth: Callable[[str, int, int, float], float],
) -> dict[str, int]:
    """With single steps added, those worth most first, as long as they fit.

    ``worth`` is asked with the group, its count, the next one and what that costs more.
    """
    while True:
        now = cost(counts)
        steps = []
        for group, k in counts.items():
            if k < ways[group][-1]:
                more = ways[group][bisect_right(ways[group], k)]
                price = cost({**counts, group: more}) - now
                if now + price <= target:
                    steps.append((worth(group, k, more, price), group, more))
        if not steps:
            return counts
        _, group, more = max(steps, key=lambda step: step[0])  # the first of equals
        counts = {**counts, group: more}
