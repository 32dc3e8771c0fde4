"""From a budget to decisions: how many units every group keeps, and which."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from coprune.budget.allocation import lagrangian_allocation, uniform_allocation
from coprune.budget.cost import CostModel, Quantity
from coprune.budget.counts import (
    Budget,
    OutOfReachError,
    allowed_counts,
    check_reachable,
    nearest_allowed,
    uniform_counts,
    units_for_share,
)
from coprune.budget.validation import BETTER, Measured
from coprune.errors import UserError, setting
from coprune.methods.base import GroupChoice, Untouched
from coprune.methods.joint import JointChoice
from coprune.plan import GroupDecision, ReasonCode

Choices = Sequence[GroupChoice] | JointChoice
"""A method's answer: a choice a group, or one over all groups."""


def decide(
    budget: Budget,
    cost: CostModel,
    choices: Choices,
    *,
    allocation: str = "uniform",
    measured: Measured | None = None,
    round_to: int = 1,
    why: str | None = None,
) -> tuple[GroupDecision, ...]:
    """Turn a budget into decisions.

    Args:
        budget: what was asked for; what has to be searched is searched elsewhere.
        cost: the cost model.
        choices: the method's.
        allocation: see :func:`counts`; a joint choice shares out by itself.
        measured: see :class:`coprune.budget.validation.Measured`. Where it leaves fewer units than its
            curves were measured at, it is tried against a uniform allocation.
        round_to: see :func:`coprune.budget.counts.allowed_counts`.
        why: who asked for that many, in words; by default the budget.

    Raises:
        UserError: see :func:`counts`.
    """
    code = ReasonCode.SEARCH if why else ReasonCode.KNEE if budget.empty else ReasonCode.BUDGET
    if not isinstance(choices, Sequence):
        for option, asked in (("round_to", round_to > 1), ("uniform", bool(cost.ties))):
            if asked:
                raise UserError(
                    f"{setting(option)} is of each group; this method chooses over all groups at once"
                )
        total, said = _joint_count(budget, cost, choices)
        return _coded(choices.keep(total, why=why or said), code)
    curves = measured.curves if measured else None
    wanted, said = counts(budget, cost, choices, allocation=allocation, curves=curves, round_to=round_to)
    made = _coded(_keep(choices, wanted, why=why or said), code)
    if measured is None or curves is None or budget.empty or measured.covers(wanted, cost.sizes):
        return made
    try:
        uniform, _ = counts(budget, cost, choices, allocation="uniform", round_to=round_to)
    except OutOfReachError:
        return made
    if uniform == wanted:
        return made
    uniformly = _keep(choices, uniform, why=f"{why or said}, by uniform allocation: tried, it loses less")
    try:
        at_most = BETTER * measured.divergence(made)
        if measured.divergence(uniformly) < at_most:
            return _coded(uniformly, ReasonCode.UNIFORM)
        return made
    except UserError as cause:
        untried = f"{why or said}; not tried against a uniform allocation ({cause})"
        return _coded(_keep(choices, wanted, why=untried), ReasonCode.NOT_VALIDATED)


def _coded(decisions: Sequence[GroupDecision], code: ReasonCode) -> tuple[GroupDecision, ...]:
    # A group that its method leaves whole says so already.
    return tuple(d if d.reason_code else d.model_copy(update={"reason_code": code}) for d in decisions)


def _keep(
    choices: Sequence[GroupChoice], counts: Mapping[str, int], *, why: str
) -> tuple[GroupDecision, ...]:
    # A group without a count is one that its method leaves whole.
    return tuple(choice.keep(counts.get(choice.group.name, choice.group.size), why=why) for choice in choices)


def spendable(cost: CostModel, choices: Choices) -> CostModel:
    """The cost of the groups that can lose units: what is left whole costs all it does, whatever is asked.

    Args:
        cost: of all groups.
        choices: the method's; it may leave a group whole.
    """
    if not isinstance(choices, Sequence):
        return cost
    whole = {choice.group.name for choice in choices if isinstance(choice, Untouched)}
    return replace(cost, sizes={name: size for name, size in cost.sizes.items() if name not in whole})


def kept_ratio(cost: CostModel, decisions: Sequence[GroupDecision]) -> float:
    """Share of the MACs that decisions keep."""
    return cost.ratio({d.name: len(d.kept) for d in decisions})


def _joint_count(budget: Budget, cost: CostModel, choice: JointChoice) -> tuple[int, str]:
    """How many units over all groups together, and who asked for so many."""
    sizes = {group.name: group.size for group in choice.groups}
    for option, share in _asked(budget, "keep_heads", "keep_units"):
        return units_for_share(sizes, share, option=option), f"{option}={share:g} asks for it"
    for option, target in _asked(budget, "keep_macs", "keep_params"):
        quantity = _QUANTITIES[option]
        check_reachable(cost, target, quantity=quantity)

        def ratio(k: int, quantity: Quantity = quantity) -> float:
            return cost.ratio({d.name: len(d.kept) for d in choice.keep(k, why="")}, quantity)

        # More units never cost less.
        more = range(len(sizes) + 1, sum(sizes.values()) + 1)
        return len(sizes) + bisect_right(more, target, key=ratio), _as_many(option, target)
    if choice.knee is None:
        raise _no_knee()
    return choice.knee.k, "the knee of its curve"


_QUANTITIES: dict[str, Quantity] = {"keep_macs": "macs", "keep_params": "params"}


def _asked(budget: Budget, *options: str) -> Iterator[tuple[str, float]]:
    """Those of some shares of a budget that were given."""
    for option in options:
        if (share := getattr(budget, option)) is not None:
            yield option, share


def _as_many(option: str, target: float) -> str:
    return f"as many as {option}={target:g} allows"


def _no_knee() -> UserError:
    budgets = f"{setting('keep_macs')}, {setting('keep_units')} or {setting('max_drop')}"
    return UserError(f"this method has no knee of its own; give {budgets}")


def counts(
    budget: Budget,
    cost: CostModel,
    choices: Sequence[GroupChoice],
    *,
    allocation: str = "uniform",
    curves: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
) -> tuple[dict[str, int], str]:
    """How many units each group keeps, and who asked for so many.

    Args:
        budget: what was asked for; what has to be searched is searched elsewhere.
        cost: the cost model.
        choices: the method's choices, one a group.
        allocation: ``uniform``: every group keeps the same share. ``knee``: shares in the
            proportion that the method's knees have. ``measured``: where it costs least by ``curves``.
        curves: what the measured allocation goes by, group → ``[U + 1]``.
        round_to: see :func:`coprune.budget.counts.allowed_counts`.

    Returns:
        Group name → number of units, but for groups that the method leaves whole, and the words for the plan.

    Raises:
        UserError: no budget and a method without a knee, or a budget out of reach.
    """
    cost = spendable(cost, choices)
    tied, members = cost.tied(), {name: cost.ties.get(name, name) for name in cost.sizes}
    knees = _knees(choices, members)
    if allocation != "measured" or (cost.ties and budget.keep_heads is not None):
        curves = None
    elif curves is not None and cost.ties:
        curves = _summed(curves, members)
    found, why = _counts(budget, tied, knees, allocation=allocation, curves=curves, round_to=round_to)
    return {name: found[one] for name, one in members.items()}, why


def _knees(choices: Sequence[GroupChoice], members: Mapping[str, str]) -> dict[str, float | None]:
    """What is tied → the units of its groups' knees, in the mean; None where one has none."""
    found: dict[str, list[int | None]] = {}
    for choice in choices:
        name = choice.group.name
        if name in members:
            found.setdefault(members[name], []).append(choice.knee.k if choice.knee else None)
    return {n: None if None in k else sum(filter(None, k)) / len(k) for n, k in found.items()}


def _summed(curves: Mapping[str, Tensor], members: Mapping[str, str]) -> dict[str, Tensor]:
    """What is tied → the sum of its groups' curves."""
    found: dict[str, Tensor] = {}
    for name, one in members.items():
        found[one] = found[one] + curves[name] if one in found else curves[name]
    return found


def _counts(
    budget: Budget,
    cost: CostModel,
    knees: Mapping[str, float | None],
    *,
    allocation: str,
    curves: Mapping[str, Tensor] | None,
    round_to: int,
) -> tuple[dict[str, int], str]:
    """:func:`counts` of groups that are free of one another."""
    ways = {name: allowed_counts(size, round_to) for name, size in cost.sizes.items()}
    for option, target in _asked(budget, "keep_macs", "keep_params"):
        quantity, why = _QUANTITIES[option], _as_many(option, target)
        if curves is not None:
            check_reachable(cost, target, quantity=quantity, round_to=round_to)
            ratio, slope = partial(cost.ratio, quantity=quantity), partial(cost.slope, quantity=quantity)
            return lagrangian_allocation(curves, ratio, target, slope=slope, ways=ways), why
        shares = None
        if allocation == "knee":
            shares = {name: knee / cost.sizes[name] for name, knee in knees.items() if knee}
            if not shares:
                raise UserError(f"{setting('allocation', 'knee')} needs a method with a knee, such as cosep")
        return uniform_allocation(cost, target, shares=shares, quantity=quantity, round_to=round_to), why
    for option, share in _asked(budget, "keep_heads", "keep_units"):
        why = f"{option}={share:g} asks for it"
        if option == "keep_units" or curves is None:
            return uniform_counts(cost.sizes, share, round_to=round_to), why
        wanted = units_for_share(cost.sizes, share, option=option, round_to=round_to)
        return lagrangian_allocation(curves, _total, wanted, slope=lambda *_: (1.0, 0.0), ways=ways), why
    if not all(knees.values()):
        raise _no_knee()
    kept = {name: nearest_allowed(k, cost.sizes[name], round_to) for name, k in knees.items() if k}
    return kept, "the knee of its curve"


def _total(counts: Mapping[str, int]) -> float:
    return float(sum(counts.values()))
