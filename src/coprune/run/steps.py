"""The steps that ``prune`` and ``compare`` share, each a function of the values of the step before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from coprune.allocate import measured_curves, spend
from coprune.data import DataSet, MemorySource, Source
from coprune.data.dataset import check_classes
from coprune.data.shares import own_batches
from coprune.errors import UserError
from coprune.forward import FAILURES, Inputs, check_takes, moved, part_of
from coprune.plan import GroupDecision, Skipped
from coprune.profile import Profile, Statistic, gather
from coprune.recover import Recovered, kept_outputs, recovered
from coprune.run.measured import BETTER, Measured, Trial
from coprune.select import (
    Budget,
    GroupChoice,
    JointChoice,
    OutOfReachError,
    Untouched,
    allowed_counts,
    check_reachable,
    counts_for_macs,
    least_counts,
    nearest_allowed,
    uniform_counts,
    units_for_share,
)
from coprune.surgery import sound
from coprune.units import CostModel, Units, cost_model, find_units

KINDS = ("inner", "heads", "neurons", "coupled")
"""Kinds of groups that can be removed."""

DEFAULT_KINDS = ("inner", "heads", "neurons")
"""Those that are, unless the user says otherwise."""

UnitWord = Literal["channels", "inner", "coupled", "heads", "neurons"]
"""What a user may ask for; ``channels`` are inner ones."""

_LOOK = 250  # samples of a pass

Choices = Sequence[GroupChoice] | JointChoice
"""What a method says: a choice a group, or one over all groups."""


@dataclass(frozen=True)
class Prepared:
    """A model looked at: one sample to trace with, its groups and what they cost.

    Attributes:
        more: what would let more be removed, in words.
    """

    example: Inputs
    units: Units
    cost: CostModel
    more: str = ""

    @contextmanager
    def within_reach(self) -> Iterator[None]:
        """Within the context, a budget out of reach is said to be so with the way out that there is.

        Raises:
            UserError: instead of :class:`coprune.select.OutOfReachError`.
        """
        try:
            yield
        except OutOfReachError as cause:
            raise UserError(f"{cause}{self.more}") from cause


def prepare(
    model: nn.Module,
    data: DataSet,
    *,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    kinds: Sequence[str] = DEFAULT_KINDS,
    offered: Sequence[str] = (*DEFAULT_KINDS, "coupled"),
) -> Prepared:
    """Find what can be removed.

    Args:
        model: unpruned.
        data: one held-out sample is traced with.
        skip: layers to leave alone.
        only: layers whose groups may be pruned, and nothing else; empty: all.
        kinds: of groups that may be removed; the others are reported as left alone. Coupled groups are
            tried first (:func:`coprune.surgery.sound`).
        offered: kinds that might have been asked for, which a budget out of reach is pointed to.

    Raises:
        UserError: the model does not take the data, or nothing can be removed (with all reasons).
    """
    inputs, _ = next(iter(data.heldout.batches(1)))
    example = moved(part_of(inputs, [0]), "cpu")
    model.cpu()
    check_takes(model, example)
    coupled = "coupled" in kinds
    every = find_units(model, example, skip=skip, only=only, coupled=coupled)
    more = _way_out(every, kinds, offered)
    units = sound(model, _of_kinds(every, kinds), example)
    if not units.groups:
        why = "; ".join(f"{s.layer}: {s.reason}" for s in units.skipped[:6]) or "it has no dense layers"
        raise UserError(f"nothing in this {type(model).__name__} can be pruned: {why}{more}")
    return Prepared(example, units, cost_model(model, example, units.groups), more)


def kinds_asked(units: Sequence[str]) -> tuple[str, ...]:
    """Kinds of groups that a user's words stand for; without any, the default ones."""
    return tuple("inner" if unit == "channels" else unit for unit in units) or DEFAULT_KINDS


def _way_out(units: Units, kinds: Sequence[str], offered: Sequence[str]) -> str:
    """How more could be removed, for the end of a message; nothing where there is no more."""
    there = {g.kind for g in units.groups}
    if any(s.reason.startswith("coupled") for s in units.skipped):
        there.add("coupled")
    left = [kind for kind in offered if kind in there and kind not in kinds]
    if not left:
        return ""
    asked = [kind for kind in offered if kind in there and kind in kinds]
    words = {"inner": "channels", "coupled": "coupled channels"}
    said = " and ".join(words.get(kind, kind) for kind in left)
    return f"; --units {','.join([*asked, *left])} removes {said} too"


def _of_kinds(units: Units, kinds: Sequence[str]) -> Units:
    wanted = " and ".join("channels" if kind == "inner" else kind for kind in kinds)
    left = tuple(
        Skipped(layer=g.name, reason=f"left alone: only {wanted} are removed")
        for g in units.groups
        if g.kind not in kinds
    )
    return Units(tuple(g for g in units.groups if g.kind in kinds), (*left, *units.skipped))


def gather_for(
    model: nn.Module,
    prepared: Prepared,
    source: Source,
    statistics: Sequence[Statistic],
    *,
    classes: int,
    device: str,
    known: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Profile:
    """The profile that some methods asked for; statistics already ``known`` are not gathered again.

    Raises:
        UserError: see :func:`coprune.profile.gather`; or too few samples of a class for what is asked for.
    """
    have = dict(known or {})
    missing = {s.key: s for s in statistics if s.key not in have}
    if isinstance(source, MemorySource) and any(s.per_class for s in missing.values()):
        check_classes(source.labels, classes, where="calibration samples")
    try:
        found = gather(model, prepared.units.groups, source, missing.values(), classes=classes, device=device)
    except UserError:
        raise
    except FAILURES:
        # Whose fault is it? No exchange here: other processes know nothing of this.
        model.to(device)
        for batch in own_batches(source, _LOOK):
            check_takes(model, moved(batch.inputs, device))
        raise
    return Profile(prepared.units.groups, prepared.cost, {**have, **found}, device)


def measured_for(
    model: nn.Module,
    choices: Choices,
    source: Source,
    example: Inputs,
    *,
    allocation: str,
    seed: int,
    device: str,
) -> Measured | None:
    """What the measured allocation goes by; None for the other allocations.

    Args:
        model: unpruned.
        choices: what the method says.
        source: calibration samples; labels are not read.
        example: one input to trace with.
        allocation: see :func:`counts`.
        seed: of the trials.
        device: where to compute.
    """
    if allocation != "measured":
        return None
    curves = measured_curves(model, choices, source, device=device)  # type: ignore[arg-type]
    model.cpu()
    return Measured(curves, Trial(model, example, source, seed, device))


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
        measured: see :func:`measured_for`. What its curves say is tried against an even allocation.
        round_to: see :func:`coprune.select.allowed_counts`.
        why: who asked for that many, in words; by default the budget.

    Raises:
        UserError: see :func:`counts`.
    """
    if not isinstance(choices, Sequence):
        if round_to > 1:
            raise UserError("--round-to rounds each group; this method chooses over all groups at once")
        total, said = _joint_count(budget, cost, choices)
        return choices.keep(total, why=why or said)
    curves = measured.curves if measured else None
    wanted, said = counts(budget, cost, choices, allocation=allocation, curves=curves, round_to=round_to)
    made = _keep(choices, wanted, why=why or said)
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
        at_most = BETTER * measured.trial.divergence(made)
        return evenly if measured.trial.divergence(evenly) < at_most else made
    except UserError as cause:
        untried = f"{why or said}; not tried against an even share ({cause})"
        return _keep(choices, wanted, why=untried)


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
        raise UserError(_NO_KNEE)
    return choice.knee.k, "the knee of its curve"


_NO_KNEE = "this method has no knee of its own; give --keep-macs, --keep-units or --max-drop"


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
        round_to: see :func:`coprune.select.allowed_counts`.

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
                raise UserError("--allocation knee needs a method with a knee, such as cosep")
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
        raise UserError(_NO_KNEE)
    kept = {name: nearest_allowed(k.k, cost.sizes[name], round_to) for name, k in knees.items() if k}
    return kept, "the knee of its curve"


def recover(
    model: nn.Module,
    teacher: nn.Module,
    decisions: Sequence[GroupDecision],
    source: Source,
    *,
    how: str,
    seed: int,
    device: str,
) -> Recovered:
    """Bring accuracy back without labels, in place.

    Args:
        model: right after surgery.
        teacher: the unpruned model.
        decisions: what was cut.
        source: calibration samples; labels are not read.
        how: one of :data:`coprune.recover.RECOVERIES`.
        seed: see :func:`coprune.recover.recovered`.
        device: where to compute.
    """
    kept = kept_outputs(teacher, decisions)
    did = recovered(model, teacher, source, how=how, kept=kept, decisions=decisions, seed=seed, device=device)
    teacher.cpu()
    return did
