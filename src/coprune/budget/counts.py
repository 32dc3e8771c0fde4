"""How many units each group keeps, from one number for the whole network."""

from __future__ import annotations

from collections.abc import Mapping

from coprune.budget.cost import CostModel, Quantity
from coprune.budget.request import Budget as Budget
from coprune.errors import UserError, setting


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
    return {g: nearest_allowed(round(share * n), n, round_to) for g, n in sizes.items()}


def units_for_share(sizes: Mapping[str, int], share: float, *, option: str, round_to: int = 1) -> int:
    """How many of all units together a share comes to, rounded.

    Args:
        sizes: units of every group.
        share: in (0, 1].
        option: how a message names the share.
        round_to: see :func:`allowed_counts`; each group keeps the least at least.

    Raises:
        OutOfReachError: fewer units than the least of all groups.
    """
    total, least = sum(sizes.values()), sum(least_counts(sizes, round_to).values())
    wanted = round(share * total)
    if wanted < least:
        raise OutOfReachError(
            f"{option}={share:g} cannot be reached: {'one' if round_to == 1 else round_to} in each of "
            f"{len(sizes)} groups is {least / total:.3f} of all {total}; ask for at least that much"
        )
    return wanted


def least_counts(sizes: Mapping[str, int], round_to: int = 1) -> dict[str, int]:
    """The fewest units that every group may keep."""
    return {g: allowed_counts(n, round_to)[0] for g, n in sizes.items()}


def check_reachable(cost: CostModel, target: float, *, quantity: Quantity, round_to: int = 1) -> None:
    """Refuse a budget that even the least of every group exceeds.

    Raises:
        OutOfReachError: says what the least is.
    """
    least = cost.ratio(least_counts(cost.sizes, round_to), quantity)
    if least <= target:
        return
    refused = f"keep_{quantity}={target:g} cannot be reached"
    if not cost.sizes:
        raise OutOfReachError(
            f"{refused}: there is no group that the method could take units from; "
            f"give another {setting('method')}"
        )
    what = {"macs": "MACs", "params": "parameters"}[quantity]
    fewest = "one unit" if round_to == 1 else f"{round_to} units"
    raise OutOfReachError(
        f"{refused}: {fewest} in every group still costs {least:.3f} of the {what}; "
        "ask for at least that much",
        quantity,
    )
