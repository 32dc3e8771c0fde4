"""How many units each group keeps, from one number for the whole network."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

from coprune.budget.request import Budget as Budget
from coprune.errors import UserError, setting
from coprune.groups import CostModel, Quantity


class OutOfReachError(UserError):
    """A budget that even the least of every group exceeds.

    Attributes:
        quantity: what there is too much of, where layers have shares of it.
    """

    def __init__(self, message: str, quantity: Quantity | None = None) -> None:
        super().__init__(message)
        self.quantity = quantity


def allowed_counts(size: int, round_to: int = 1) -> list[int]:
    """How many units a group may keep, rising: multiples of ``round_to``, or all.

    A group of fewer units than that may keep any number.
    """
    if size < round_to:
        return list(range(1, size + 1))
    return sorted({*range(round_to, size + 1, round_to), size})


def nearest_allowed(wanted: float, size: int, round_to: int = 1) -> int:
    """The allowed count that is nearest; of two the larger."""
    return min(allowed_counts(size, round_to), key=lambda k: (abs(k - wanted), -k))


def uniform_counts(sizes: Mapping[str, int], share: float, *, round_to: int = 1) -> dict[str, int]:
    """The same share of every group, rounded, at least one unit each."""
    plain = {g: min(n, max(1, round(share * n))) for g, n in sizes.items()}
    return {g: nearest_allowed(k, sizes[g], round_to) for g, k in plain.items()}


def units_for_share(total: int, share: float, *, groups: int, option: str) -> int:
    """How many of all units together a share comes to, rounded.

    Args:
        total: units of all groups.
        share: in (0, 1].
        groups: each keeps one at least.
        option: how a message names the share.

    Raises:
        UserError: fewer units than groups.
    """
    wanted = round(share * total)
    if wanted < groups:
        raise UserError(
            f"{option}={share:g} cannot be reached: one in each of {groups} groups is "
            f"{groups / total:.3f} of all {total}; ask for at least that much"
        )
    return wanted


def counts_for_macs(
    cost: CostModel,
    target: float,
    *,
    shares: Mapping[str, float] | None = None,
    quantity: Quantity = "macs",
    round_to: int = 1,
) -> dict[str, int]:
    """Largest counts whose MACs (or parameters) stay within a share of the full model's.

    All groups keep the same share of their units (or shares in the given proportion); the share is
    found by bisection, then single units are added where the rounding took most, as long as they
    fit. So the result comes as close to the target as one unit allows.

    Args:
        cost: the cost model.
        target: share of the quantity in (0, 1].
        shares: relative share of each group, e.g. what a knee kept; None is the same for all.
        quantity: what is limited.
        round_to: see :func:`allowed_counts`.

    Raises:
        UserError: even the least of every group costs more than the target.
    """
    check_reachable(cost, target, quantity=quantity, round_to=round_to)
    sizes = dict(cost.sizes)
    if not sizes:
        return {}
    relative = {g: (shares or {}).get(g, 1.0) for g in sizes}

    def wanted(t: float) -> dict[str, float]:
        return {g: min(float(n), max(float(ways[g][0]), t * relative[g] * n)) for g, n in sizes.items()}

    def counts(t: float) -> dict[str, int]:
        return {g: ways[g][bisect.bisect_right(ways[g], v + 1e-9) - 1] for g, v in wanted(t).items()}

    ways = {g: allowed_counts(n, round_to) for g, n in sizes.items()}
    low, high = 0.0, 1.0 / min(relative.values())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cost.ratio(counts(middle), quantity) <= target else (low, middle)
    found = counts(low)
    rest = {g: v - found[g] for g, v in wanted(high).items()}
    progress = True
    while progress:
        progress = False
        for g in sorted(sizes, key=lambda g: -rest[g]):
            if found[g] >= sizes[g]:
                continue
            next_k = ways[g][bisect.bisect_right(ways[g], found[g])]
            more = {**found, g: next_k}
            if cost.ratio(more, quantity) <= target:
                rest[g] -= next_k - found[g]
                found, progress = more, True
                break
    return found


def least_counts(sizes: Mapping[str, int], round_to: int = 1) -> dict[str, int]:
    """The fewest units that every group may keep."""
    return {g: allowed_counts(n, round_to)[0] for g, n in sizes.items()}


def check_reachable(cost: CostModel, target: float, *, quantity: Quantity, round_to: int = 1) -> None:
    """Refuse a budget that even the least of every group exceeds.

    Raises:
        OutOfReachError: says what the least is.
    """
    least = cost.ratio(least_counts(cost.sizes, round_to), quantity)
    if least > target and not cost.sizes:
        raise OutOfReachError(
            f"keep_{quantity}={target:g} cannot be reached: there is no group that the method could take "
            f"units from; give another {setting('method')}"
        )
    if least > target:
        what = {"macs": "MACs", "params": "parameters"}[quantity]
        fewest = "one unit" if round_to == 1 else f"{round_to} units"
        raise OutOfReachError(
            f"keep_{quantity}={target:g} cannot be reached: {fewest} in every group still costs "
            f"{least:.3f} of the {what}; ask for at least that much",
            quantity,
        )
