"""From a budget to decisions: how many units every group keeps, and which."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
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
        refused = "round_to" if round_to > 1 else "uniform" if cost.ties else ""
        if refused:
            raise UserError(
                f"{setting(refused)} is of each group; this method chooses over all groups at once"
            )
        total, said = _joint_count(budget, cost, choices)
        return _coded(choices.keep(total, why=why or said), code)
    shared = partial(counts, budget, cost, choices, round_to=round_to)
    wanted, said = shared(allocation=allocation, curves=measured.curves if measured else None)
    said = why or said
    made = _coded(_keep(choices, wanted, why=said), code)
    if measured is None or budget.empty or measured.covers(wanted, cost.sizes):
        return made
    try:
        uniform, _ = shared(allocation="uniform")
    except OutOfReachError:
        return made
    if uniform == wanted:
        return made
    uniformly = _keep(choices, uniform, why=f"{said}, by uniform allocation: tried, it loses less")
    try:
        at_most = BETTER * measured.divergence(made)
        if measured.divergence(uniformly) < at_most:
            return _coded(uniformly, ReasonCode.UNIFORM)
        return made
    except UserError as cause:
        untried = f"{said}; not tried against a uniform allocation ({cause})"
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


def kept_ratio(cost: CostModel, decisions: Sequence[GroupDecision], quantity: Quantity = "macs") -> float:
    """Share of the MACs (or parameters) that decisions keep."""
    return cost.ratio({d.name: len(d.kept) for d in decisions}, quantity)


def _joint_count(budget: Budget, cost: CostModel, choice: JointChoice) -> tuple[int, str]:
    """How many units over all groups together, and who asked for so many."""
    sizes = {group.name: group.size for group in choice.groups}
    option, share = _asked(budget)
    quantity = _QUANTITIES.get(option)
    if quantity is not None:
        check_reachable(cost, share, quantity=quantity)
        # More units never cost less.
        more = range(len(sizes) + 1, sum(sizes.values()) + 1)
        fitting = bisect_right(more, share, key=lambda k: kept_ratio(cost, choice.keep(k, why=""), quantity))
        return len(sizes) + fitting, _who(option, share)
    if option:
        return units_for_share(sizes, share, option=option), _who(option, share)
    if choice.knee is None:
        raise _no_knee()
    return choice.knee.k, _who(option, share)


_QUANTITIES: dict[str, Quantity] = {"keep_macs": "macs", "keep_params": "params"}


def _asked(budget: Budget) -> tuple[str, float]:
    """The option that was asked for, and its share; ``""`` for the knee."""
    return next(iter(budget.asked.items()), ("", 1.0))


def _who(option: str, share: float) -> str:
    """Who asked for so many, in the words of the plan."""
    asked = f"{option}={share:g}"
    if option in _QUANTITIES:
        return f"as many as {asked} allows"
    return f"{asked} asks for it" if option else "the knee of its curve"


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
    elif curves is not None:
        curves = _summed(curves, members)
    option, share = _asked(budget)
    quantity = _QUANTITIES.get(option)
    if not option:
        if not all(knees.values()):
            raise _no_knee()
        found = {name: nearest_allowed(k, tied.sizes[name], round_to) for name, k in knees.items() if k}
    elif curves is None and quantity is not None:
        shares = None
        if allocation == "knee":
            shares = {name: knee / tied.sizes[name] for name, knee in knees.items() if knee}
            if not shares:
                raise UserError(f"{setting('allocation', 'knee')} needs a method with a knee, such as cosep")
        found = uniform_allocation(tied, share, shares=shares, quantity=quantity, round_to=round_to)
    elif curves is None or option == "keep_units":
        found = uniform_counts(tied.sizes, share, round_to=round_to)
    else:
        ways = {name: allowed_counts(size, round_to) for name, size in tied.sizes.items()}
        if quantity is not None:
            check_reachable(tied, share, quantity=quantity, round_to=round_to)
            spent, slope = partial(tied.ratio, quantity=quantity), partial(tied.slope, quantity=quantity)
            found = lagrangian_allocation(curves, spent, share, slope=slope, ways=ways)
        else:
            most = units_for_share(tied.sizes, share, option=option, round_to=round_to)
            found = lagrangian_allocation(curves, _total, most, slope=lambda *_: (1.0, 0.0), ways=ways)
    return {name: found[one] for name, one in members.items()}, _who(option, share)


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


def _total(counts: Mapping[str, int]) -> float:
    return float(sum(counts.values()))
