"""Apply a plan to a model.

Inner channels are cut through Torch-Pruning's dependency graph, and only it; coupled ones, and the heads
and feed-forward neurons of a transformer, by slicing (:mod:`coprune.surgery.slices`).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from torch import Tensor, nn

from coprune import given
from coprune.errors import UserError, shown
from coprune.groups import trace
from coprune.groups.trace import pruning_group
from coprune.layers import Side, channel_count
from coprune.models.canonicalize import canonical_copy, restore_format
from coprune.models.copies import copied
from coprune.models.registry import remember, source_of
from coprune.plan import GroupDecision, Member, Plan
from coprune.surgery.slices import is_sliced, slice_units
from coprune.tracing.forward import FAILURES, Inputs, check_takes


def cut(model: nn.Module, decisions: tuple[GroupDecision, ...], example: Inputs) -> nn.Module:
    """A copy of the model without the units that were not kept.

    Args:
        model: left as it is.
        decisions: one a group; groups keep their order.
        example: one sample ``[1, …]`` to trace the model with; not needed for a transformer.

    Returns:
        The smaller model, in evaluation mode; it remembers the source of the full one.

    Raises:
        UserError: a decision names a layer that the model lacks or that has another size.
    """
    check_fits(model, decisions)
    pruned = copied(model).cpu().eval()
    sliced = is_sliced(model, decisions)
    slice_units(pruned, [d for d, here in zip(decisions, sliced, strict=True) if here])
    traced = [d for d, here in zip(decisions, sliced, strict=True) if not here]
    if traced:
        _cut_channels(pruned, traced, example)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for name, parameter in pruned.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(name not in frozen)  # surgery makes new parameters
    source = source_of(model)
    return remember(pruned, source) if source else pruned


def _cut_channels(pruned: nn.Module, decisions: list[GroupDecision], example: Inputs) -> None:
    """Remove channels through the dependency graph, in place."""
    if not isinstance(example, Tensor):
        raise UserError(
            f"plan for another model: '{decisions[0].name}' names no heads or neurons of this "
            f"{type(pruned).__name__}, and named inputs cannot be traced"
        )
    graph = trace(pruned, example.cpu())
    for decision in decisions:
        removed = sorted(set(range(decision.size)) - set(decision.kept))
        if not removed:
            continue
        layer = pruned.get_submodule(decision.name)
        pruning_group(graph, layer, removed).prune()


def check_fits(model: nn.Module, decisions: tuple[GroupDecision, ...]) -> None:
    """Refuse a plan that was made for another model.

    Raises:
        UserError: names the first layer that is missing or has another number of channels.
    """
    modules = dict(model.named_modules())
    for decision in decisions:
        if decision.name not in modules:
            raise UserError(
                f"plan for another model: layer '{decision.name}' is not in this {type(model).__name__}"
            )
        made = channel_count(modules[decision.name], "output")
        if not decision.members and made != decision.size:
            raise UserError(
                f"plan for another model: layer '{decision.name}' has {made} channels, the plan says "
                f"{decision.size}"
            )
        shares: dict[tuple[str, str], list[Member]] = defaultdict(list)
        for member in decision.members:
            shares[member.layer, member.role].append(member)
        for (layer, role), members in shares.items():
            module = modules.get(layer)
            if module is None:
                raise UserError(
                    f"plan for another model: layer '{layer}' is not in this {type(model).__name__}"
                )
            bare = next((m.parameter for m in members if m.parameter is not None), None)
            if bare is not None and not isinstance(getattr(module, bare, None), nn.Parameter):
                raise UserError(f"plan for another model: layer '{layer}' has no parameter '{bare}'")
            side: Side = "input" if role == "consumer" else "output"
            has = channel_count(module, side, members[0].parameter)
            # A fused projection has several shares in a group of heads, the last one up to its end.
            needs = max(m.width or m.offset + decision.size * m.span for m in members)
            # A consumer behind a concatenation reads more than this group.
            told = any(m.width for m in members)
            enough = role == "consumer" and not told and has is not None and has >= needs
            if has is not None and has != needs and not enough:
                raise UserError(
                    f"plan for another model: layer '{layer}' has {has} channels, the plan says {needs}"
                )


def apply_plan(model: nn.Module, plan: Plan | str | Path, example: Inputs) -> nn.Module:
    """:func:`cut` with a plan, or its file, of a model as its user has it (:mod:`.canonicalize`).

    Raises:
        UserError: no model, no plan, or a plan for another model; the model does not take the example, or
            what is left of it does not run.
    """
    source, read = source_of(given.module(model, "model")), given.plan(plan)
    if read is None:
        raise UserError("plan is None; give a Plan, or its file")
    whole = canonical_copy(model)
    if isinstance(example, Tensor):
        check_takes(whole, example)
    try:
        pruned = cut(remember(whole, source) if source else whole, read.groups, example)
    except UserError:
        raise
    except FAILURES as cause:
        raise UserError(
            f"plan for another model: it cannot be cut so ({shown(str(cause), most=200)})"
        ) from cause
    if isinstance(example, Tensor):
        try:
            check_takes(pruned, example)
        except UserError as cause:
            raise UserError(f"plan for another model: what it leaves does not run ({cause})") from cause
    return restore_format(pruned)


__all__ = ["apply_plan", "check_fits", "cut"]
