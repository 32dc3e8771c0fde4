"""What is left of the unpruned model in a pruned one, by its plan or by the channels' behaviour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from coprune.data import Source
from coprune.data.subsample import spread
from coprune.errors import UserError, setting
from coprune.groups import ChannelGroup, find_units
from coprune.layers import channel_count
from coprune.plan import GroupDecision, Plan, ReasonCode
from coprune.recovery import kept_outputs, matched_outputs
from coprune.store.model import weights_fingerprint
from coprune.surgery import check_fits
from coprune.tracing.forward import part_of

_SAMPLED = 256


@dataclass(frozen=True)
class Surviving:
    """What is left of the unpruned model.

    Attributes:
        outputs: layer → the unpruned layer's output channels that the pruned one still has, ``[K]``
            int64, for every layer that has lost some.
        decisions: what was cut.
    """

    outputs: Mapping[str, Tensor]
    decisions: tuple[GroupDecision, ...]


def surviving(
    model: nn.Module,
    teacher: nn.Module,
    source: Source,
    decisions: tuple[GroupDecision, ...] | None,
) -> Surviving:
    """What the pruned model still has of the unpruned one.

    Args:
        model: pruned.
        teacher: unpruned.
        source: calibration samples, read when no plan says what was cut.
        decisions: what was cut, when it is known.

    Raises:
        UserError: the decisions are for another model, or the channels cannot be identified.
    """
    if decisions is not None:
        check_fits(teacher, decisions)
        return Surviving(kept_outputs(teacher, decisions), decisions)
    inputs = spread(source, _SAMPLED)
    found = find_units(teacher.cpu(), part_of(inputs, [0]), coupled=True, first=True).groups
    shared = [g for g in found if _is_shared(g)]
    groups = [g for g in found if g not in shared]
    for layer in (m.layer for g in shared for m in g.of_role("producer")):
        has = [channel_count(m.get_submodule(layer), "output") for m in (model, teacher)]
        if has[0] != has[1]:
            raise UserError(
                f"layer '{layer}' has {has[0]} of {has[1]} channels that other layers share, and it "
                f"is unknown which; give the plan that cut it with {setting('plan')}"
            )
    outputs = matched_outputs(model.cpu(), teacher, inputs, groups)
    return Surviving(outputs, cut_elsewhere(groups, outputs))


def _is_shared(group: ChannelGroup) -> bool:
    """Whether several channels make a unit, which each by itself might be taken for another's."""
    makers = group.of_role("producer")
    gated = group.kind == "inner" and (len(makers) > 1 or makers[0].span > 1)
    return gated or group.kind == "coupled"


def check_made_of(plan: Plan | None, teacher: nn.Module) -> None:
    """Refuse a plan that cut another model than the one that is given as unpruned.

    Args:
        plan: what was cut, where that is known.
        teacher: as it is worked with, see :func:`coprune.models.canonicalize.canonical_copy`.

    Raises:
        UserError: its weights are not those that the plan was made of.
    """
    if plan is not None and plan.model != weights_fingerprint(teacher):
        raise UserError(
            "plan for another model: the weights of the unpruned one are not those that were cut; give the "
            "model that the plan was made of"
        )


def _units_left(group: ChannelGroup, kept: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Units of a group that are still there, by the channels that one of its producers still makes."""
    member = next((m for m in group.of_role("producer") if m.layer in kept), None)
    if member is None:
        return tuple(range(group.size))
    channels, left = member.of_units(group.size), set(kept[member.layer].tolist())
    of_units = [channels[u * member.span : (u + 1) * member.span] for u in range(group.size)]
    units = [unit for unit, own in enumerate(of_units) if left.issuperset(own)]
    if len(units) * member.span != len(left.intersection(channels)):
        raise UserError(
            f"layer '{member.layer}': it is unknown which {group.kind} stayed; give the plan "
            f"({setting('plan')})"
        )
    return tuple(units)


def cut_elsewhere(groups: Iterable[ChannelGroup], kept: Mapping[str, Tensor]) -> tuple[GroupDecision, ...]:
    """What must have been cut, by the channels that the layers still make."""
    why = "cut elsewhere; identified by the channels' behaviour on calibration samples"
    return tuple(
        g.decision(_units_left(g, kept), why, reason_code=ReasonCode.ELSEWHERE, kind=g.kind) for g in groups
    )
