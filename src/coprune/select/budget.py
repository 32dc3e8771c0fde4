"""How many units each group keeps, from one number for the whole network."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from coprune.errors import UserError
from coprune.units import CostModel, Quantity


class Budget(BaseModel):
    """What was asked for; nothing means the method's own knee.

    Attributes:
        keep_macs: share of the MACs to keep.
        keep_params: share of the parameters to keep.
        keep_units: share of every group's units to keep.
        keep_heads: share of all attention heads of the model to keep; nothing else is removed.
        latency_ms: milliseconds that one sample may take, on the device and threads of the run.
        max_drop: largest loss of calibration accuracy, in points (0.5 is half a per cent).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_macs: float | None = Field(None, gt=0, le=1)
    keep_params: float | None = Field(None, gt=0, le=1)
    keep_units: float | None = Field(None, gt=0, le=1)
    keep_heads: float | None = Field(None, gt=0, le=1)
    latency_ms: float | None = Field(None, gt=0)
    max_drop: float | None = Field(None, ge=0, le=100)

    @property
    def words(self) -> str:
        """For plan and page, e.g. ``keep_macs=0.5``."""
        given = [f"{k}={v:g}" for k, v in self.model_dump().items() if v is not None]
        return ", ".join(given) or "knee"

    @property
    def searched(self) -> bool:
        """Whether models are tried to find it, rather than counted."""
        return self.max_drop is not None or self.latency_ms is not None

    @property
    def empty(self) -> bool:
        """Whether nothing was asked."""
        return all(v is None for v in self.model_dump().values())


def uniform_counts(sizes: Mapping[str, int], share: float) -> dict[str, int]:
    """The same share of every group, rounded, at least one unit each."""
    return {g: min(n, max(1, round(share * n))) for g, n in sizes.items()}


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

    Raises:
        UserError: even one unit a group costs more than the target.
    """
    sizes = dict(cost.sizes)
    if not sizes:
        return {}
    relative = {g: (shares or {}).get(g, 1.0) for g in sizes}

    def wanted(t: float) -> dict[str, float]:
        return {g: min(float(n), max(1.0, t * relative[g] * n)) for g, n in sizes.items()}

    def counts(t: float) -> dict[str, int]:
        return {g: math.floor(v + 1e-9) for g, v in wanted(t).items()}

    check_reachable(cost, target, quantity=quantity)
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
            more = {**found, g: found[g] + 1}
            if found[g] < sizes[g] and cost.ratio(more, quantity) <= target:
                found, progress = more, True
                rest[g] -= 1.0
                break
    return found


def check_reachable(cost: CostModel, target: float, *, quantity: Quantity) -> None:
    """Refuse a budget that even one unit a group exceeds.

    Raises:
        UserError: says what the least is.
    """
    least = cost.ratio(dict.fromkeys(cost.sizes, 1), quantity)
    if least > target:
        what = {"macs": "MACs", "params": "parameters"}[quantity]
        raise UserError(
            f"keep_{quantity}={target:g} cannot be reached: one unit in every group still costs "
            f"{least:.3f} of the {what}; ask for at least that much"
        )
