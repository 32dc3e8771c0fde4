"""Which units a run may remove: kinds that were asked for, and groups that were found and tried."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from coprune.budget.cost import CostModel, Quantity, cost_model
from coprune.budget.counts import uniform_counts
from coprune.data import Source
from coprune.data.subsample import spread_batches
from coprune.errors import UserError, setting
from coprune.groups import Units, find_units
from coprune.pipeline.settings import DEFAULT_KINDS
from coprune.pipeline.settings import Units as AskedUnits
from coprune.skipped import COUPLED, SkipCode, because
from coprune.surgery import sound
from coprune.tracing.execution import run_for_some
from coprune.tracing.forward import Counts, Inputs, counted, moved

KINDS = (*DEFAULT_KINDS, "coupled")
"""Kinds of groups that can be removed."""

_FEW = 13  # samples of a pass that shows which layers run; seldom a layer's width


_LEAST = 1 / 8  # of every group: where a budget leaves less, more kinds of groups are taken in


@dataclass(frozen=True)
class Scope:
    """What of a network may be removed.

    Attributes:
        kinds: of groups; the others are reported as left alone.
        offered: kinds that might have been asked for, which a budget out of reach is pointed to.
        asked: what a user said; unless they named kinds or layers, more may be taken in, see
            :func:`removable`.
        first: whether the first layer's channels may go.
        budget: quantity → the smallest share of it that is to be kept.
    """

    kinds: Sequence[str] = DEFAULT_KINDS
    offered: Sequence[str] = KINDS
    asked: AskedUnits = field(default_factory=AskedUnits)
    first: bool = False
    budget: Mapping[Quantity, float] = field(default_factory=dict)

    def units(
        self, model: nn.Module, example: Inputs, counts: Counts, *, partly: Collection[str] = ()
    ) -> Units:
        """All groups of a network, of other kinds too; see :func:`coprune.groups.find_units`."""
        return find_units(
            model,
            example,
            skip=self.asked.skip,
            only=self.asked.only,
            coupled="coupled" in self.kinds,
            first=self.first,
            partly=partly,
            counts=counts,
        )

    @property
    def wider(self) -> Scope | None:
        """With coupled channels and the first layer's; none where that was decided, or is all there is."""
        if self.asked.units or self.asked.only or self.first or "coupled" not in self.offered:
            return None
        return replace(self, kinds=tuple(dict.fromkeys((*self.kinds, "coupled"))), first=True)


@dataclass(frozen=True)
class Removable:
    """What may be removed.

    Attributes:
        units: groups, and what is left alone.
        cost: of the groups.
        scope: that they were found in.
        more: how more could be removed, for the end of a message.
        widened: why more than the default kinds may go, if so.
    """

    units: Units
    cost: CostModel
    scope: Scope
    more: str = ""
    widened: str = ""


def removable(
    model: nn.Module, example: Inputs, source: Source, scope: Scope, counts: Counts = counted
) -> Removable:
    """Find what may be removed; groups of channels are tried first (:func:`coprune.surgery.sound`).

    Coupled channels and the first layer's stay where that is not asked for, unless nothing can be removed or
    the budget would leave less than an eighth of every group without them.

    Args:
        model: unpruned, on the CPU.
        example: one sample ``[1, …]``.
        source: calibration samples, a few of which show which layers run.
        scope: what may be removed.
        counts: takes what counts out of what the model hands back.

    Raises:
        UserError: nothing can be removed (with all reasons).
    """
    partly = _run_for_some(model, source, example)

    def within(scope: Scope) -> Removable:
        every = scope.units(model, example, counts, partly=partly)
        units = sound(model, _of_kinds(every, scope.kinds), example, counts=counts)
        cost = cost_model(model, example, units.groups, uniform=scope.asked.uniform)
        return Removable(units, cost, scope, _way_out(every, scope))

    found = within(scope)
    why = _too_little(found)
    if why and scope.wider is not None:
        wider = within(scope.wider)
        if wider.units.groups != found.units.groups:
            found = replace(wider, widened=f"coupled channels and the first layer's may go too: {why}")
    if found.units.groups:
        return found
    layers: dict[str, list[str]] = {}
    for skipped in found.units.skipped:
        layers.setdefault(skipped.reason, []).append(skipped.layer)
    named = [f"{', '.join(n[:3])}{' …' * (len(n) > 3)}: {reason}" for reason, n in layers.items()]
    why = "; ".join(named[:6]) or "it has no dense layers"
    raise UserError(f"nothing in this {type(model).__name__} can be pruned: {why}{found.more}")


def _too_little(found: Removable) -> str:
    """Why groups are not enough; nothing where they are."""
    if not found.units.groups:
        return "without them there is nothing to remove"
    few = uniform_counts(found.cost.sizes, _LEAST)
    for quantity, share in found.scope.budget.items():
        if found.cost.ratio(few, quantity) > share:
            return (
                f"without them {setting(f'keep_{quantity}', share)} would leave less than an eighth of "
                "every group"
            )
    return ""


def _run_for_some(model: nn.Module, source: Source, example: Inputs) -> set[str]:
    """Layers that some of a few samples do not pass; see :func:`coprune.groups.channels.run_for_some`."""
    if not isinstance(example, Tensor):
        return set()
    few = (moved(batch, "cpu") for batch in spread_batches(source, 4 * _FEW, batch_size=_FEW)[:4])
    return run_for_some(model, [example, *few])


def _way_out(units: Units, scope: Scope) -> str:
    """How more could be removed, for the end of a message; nothing where there is no more."""
    there = {g.kind for g in units.groups}
    if any(s.code in COUPLED for s in units.skipped):
        there.add("coupled")
    left = [kind for kind in scope.offered if kind in there and kind not in scope.kinds]
    if not left:
        return ""
    asked = [kind for kind in scope.offered if kind in scope.kinds and (kind in there or kind == "inner")]
    words = {"inner": "channels", "coupled": "coupled channels"}
    removed = " and ".join(words.get(kind, kind) for kind in left)
    return f"; {setting('units', (*asked, *left))} removes {removed} too"


def _of_kinds(units: Units, kinds: Sequence[str]) -> Units:
    wanted = " and ".join("channels" if kind == "inner" else kind for kind in kinds)
    left = tuple(
        because(SkipCode.OTHER_KIND, kinds=wanted).of(g.name) for g in units.groups if g.kind not in kinds
    )
    return Units(tuple(g for g in units.groups if g.kind in kinds), (*left, *units.skipped))
