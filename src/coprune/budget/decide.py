"""From a budget to decisions: how many units every group keeps, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from coprune.budget.counts import (
    Budget,
    OutOfReachError,
    allowed_counts,
    check_reachable,
    counts_for_macs,
    least_counts,
    nearest_allowed,
    uniform_counts,
    units_for_share,
)
from coprune.budget.lagrangian import spend
from coprune.budget.validation import BETTER, Measured
from coprune.errors import UserError, setting
from coprune.groups import CostModel
from coprune.methods.base import GroupChoice, Untouched
from coprune.methods.joint import JointChoice
from coprune.plan import GroupDecision, ReasonCode

Choices = Sequence[GroupChoice] | JointChoice
"""What a method says: a choice a group, or one over all groups."""


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
        choices: what the method says.
        allocation: see :func:`counts`; a joint choice shares out by itself.
        measured: see :func:`coprune.pipeline.allocation.measured_for`. What its curves say is tried
            against a uniform allocation.
        round_to: see :func:`coprune.budget.counts.allowed_counts`.
        why: who asked for that many, in words; by default the budget.

    Raises:
        UserError: see :func:`counts`.
    """
    code = ReasonCode.SEARCH if why else ReasonCode.KNEE if budget.empty else ReasonCode.BUDGET
    if not isinstance(choices, Sequence):
        if round_to > 1:
            raise UserError(
                f"{setting('round_to')} rounds each group; this method chooses over all groups at once"
            )
        total, said = _joint_count(budget, cost, choices)
        return _coded(choices.keep(total, why=why or said), code)
    curves = measured.curves if measured else None
    wanted, said = counts(budget, cost, choices, allocation=allocation, curves=curves, round_to=round_to)
    made = _coded(_keep(choices, wanted, why=why or said), code)
    if measured is None or curves is None or budget.empty:
        return made
    try:
        even, _ = counts(budget, cost, choices, allocation="uniform", round_to=round_to)
    except OutOfReachError:
        return made
    if even == wanted:
        return made
    evenly = _keep(choices, even, why=f"{why or said}, in an even share: tried, it loses less")
    try:
        at_most = BETTER * measured.divergence(made)
        if measured.divergence(evenly) < at_most:
            return _coded(evenly, ReasonCode.UNIFORM)
        return made
    except UserError as cause:
        untried = f"{why or said}; not tried against an even share ({cause})"
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
        choices: what the method says; it may have nothing to say about a group.
    """
    if not isinstance(choices, Sequence):
        return cost
    whole = {choice.group.name for choice in choices if isinstance(choice, Untouched)}
    return replace(cost, sizes={name: size for name, size in cost.sizes.items() if name not in whole})


def kept_ratio(cost: CostModel, decisions: Sequence[GroupDecision]) -> float:
    """Share of the MACs that decisions keep."""
    return cost.ratio({d.name: len(d.kept) for d in decisions})


def _joint_count(budget: Budget, cost: CostModel, choice: JointChoice) -> tuple[int, str]:
    """How many units over all groups together, and who said so."""
    total, groups = sum(g.size for g in choice.groups), len(choice.groups)
    for option, share in (("keep_heads", budget.keep_heads), ("keep_units", budget.keep_units)):
        if share is not None:
            wanted = units_for_share(total, share, groups=groups, option=option)
            return wanted, f"{option}={share:g} asks for it"
    for quantity, target in (("macs", budget.keep_macs), ("params", budget.keep_params)):
        if target is None:
            continue
        check_reachable(cost, target, quantity=quantity)  # type: ignore[arg-type]
        low, high = groups, total + 1
        while high - low > 1:  # the most that fit; more units never cost less
            middle = (low + high) // 2
            kept = {d.name: len(d.kept) for d in choice.keep(middle, why="")}
            fits = cost.ratio(kept, quantity) <= target  # type: ignore[arg-type]
            low, high = (middle, high) if fits else (low, middle)
        return low, f"as many as keep_{quantity}={target:g} allows"
    if choice.knee is None:
        raise UserError(_no_knee())
    return choice.knee.k, "the knee of its curve"


def _no_knee() -> str:
    budgets = f"{setting('keep_macs')}, {setting('keep_units')} or {setting('max_drop')}"
    return f"this method has no knee of its own; give {budgets}"


def counts(
    budget: Budget,
    cost: CostModel,
    choices: Sequence[GroupChoice],
    *,
    allocation: str = "uniform",
    curves: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
) -> tuple[dict[str, int], str]:
    """How many units each group keeps, and who said so.

    Args:
        budget: what was asked for; what has to be searched is searched elsewhere.
        cost: the cost model.
        choices: the method's choices, one a group.
        allocation: ``uniform``: every group keeps the same share. ``knee``: shares in the
            proportion that the method's knees have. ``measured``: where it costs least by ``curves``.
        curves: what the measured allocation spends by, group → ``[U + 1]``.
        round_to: see :func:`coprune.budget.counts.allowed_counts`.

    Returns:
        Group name → number of units, but for groups that the method leaves whole, and the words for the plan.

    Raises:
        UserError: no budget and a method without a knee, or a budget out of reach.
    """
    cost = spendable(cost, choices)
    knees = {c.group.name: c.knee for c in choices if c.group.name in cost.sizes}
    measured = curves if allocation == "measured" else None
    ways = {name: allowed_counts(size, round_to) for name, size in cost.sizes.items()}
    for quantity, target in (("macs", budget.keep_macs), ("params", budget.keep_params)):
        if target is None:
            continue
        why = f"as many as keep_{quantity}={target:g} allows"
        if measured is not None:
            check_reachable(cost, target, quantity=quantity, round_to=round_to)  # type: ignore[arg-type]
            ratio = partial(cost.ratio, quantity=quantity)  # type: ignore[arg-type]
            slope = partial(cost.slope, quantity=quantity)  # type: ignore[arg-type]
            return spend(measured, ratio, target, slope=slope, allowed=ways), why
        shares = None
        if allocation == "knee":
            shares = {name: k.k / cost.sizes[name] for name, k in knees.items() if k is not None}
            if not shares:
                raise UserError(f"{setting('allocation', 'knee')} needs a method with a knee, such as cosep")
        found = counts_for_macs(
            cost,
            target,
            shares=shares,
            quantity=quantity,  # type: ignore[arg-type]
            round_to=round_to,
        )
        return found, why
    if budget.keep_heads is not None:
        why = f"keep_heads={budget.keep_heads:g} asks for it"
        if measured is None:
            return uniform_counts(cost.sizes, budget.keep_heads, round_to=round_to), why
        total = sum(cost.sizes.values())
        wanted = units_for_share(total, budget.keep_heads, groups=len(cost.sizes), option="keep_heads")
        least = sum(least_counts(cost.sizes, round_to).values())
        if least > wanted:
            raise OutOfReachError(
                f"keep_heads={budget.keep_heads:g} cannot be reached: groups of at least {round_to} are "
                f"{least / total:.3f} of all {total}; ask for at least that much"
            )
        return spend(measured, lambda k: float(sum(k.values())), wanted, allowed=ways), why
    if budget.keep_units is not None:
        shared = uniform_counts(cost.sizes, budget.keep_units, round_to=round_to)
        return shared, f"keep_units={budget.keep_units:g} asks for it"
    if any(k is None for k in knees.values()):
        raise UserError(_no_knee())
    kept = {name: nearest_allowed(k.k, cost.sizes[name], round_to) for name, k in knees.items() if k}
    return kept, "the knee of its curve"
