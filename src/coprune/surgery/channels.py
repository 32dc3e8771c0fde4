"""Apply a plan to a model: cut channels through Torch-Pruning's dependency graph, and only it."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from coprune.errors import UserError
from coprune.models import remember, source_of
from coprune.plan import GroupDecision, Plan
from coprune.units import trace


def cut(model: nn.Module, decisions: tuple[GroupDecision, ...], example: Tensor) -> nn.Module:
    """A copy of the model without the channels that were not kept.

    Args:
        model: left as it is.
        decisions: one a group; groups keep their order.
        example: one sample ``[1, …]`` to trace the model with.

    Returns:
        The smaller model, in evaluation mode; it remembers the source of the full one.

    Raises:
        UserError: a decision names a layer that the model lacks or that has another size.
    """
    check_fits(model, decisions)
    pruned = copy.deepcopy(model).cpu().eval()
    graph = trace(pruned, example.cpu())
    for decision in decisions:
        removed = sorted(set(range(decision.size)) - set(decision.kept))
        if not removed:
            continue
        layer = pruned.get_submodule(decision.name)
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        graph.get_pruning_group(layer, prune, removed).prune()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for name, parameter in pruned.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(name not in frozen)  # surgery makes new parameters
    source = source_of(model)
    return remember(pruned, source) if source else pruned


def check_fits(model: nn.Module, decisions: tuple[GroupDecision, ...]) -> None:
    """Refuse a plan that was made for another model.

    Raises:
        UserError: names the first layer that is missing or has another number of channels.
    """
    modules = dict(model.named_modules())
    for decision in decisions:
        for member in decision.members:
            module = modules.get(member.layer)
            if module is None:
                raise UserError(
                    f"plan for another model: layer '{member.layer}' is not in this {type(model).__name__}"
                )
            attribute = {
                "producer": ("out_channels", "out_features"),
                "consumer": ("in_channels", "in_features"),
                "carrier": ("num_features", "out_channels"),
            }[member.role]
            has = next((getattr(module, a) for a in attribute if hasattr(module, a)), None)
            needs = member.offset + decision.size * member.span
            # A consumer behind a concatenation reads more than this group.
            enough = member.role == "consumer" and has is not None and has >= needs
            if has is not None and has != needs and not enough:
                raise UserError(
                    f"plan for another model: layer '{member.layer}' has {has} channels, "
                    f"the plan says {needs}"
                )


def apply_plan(model: nn.Module, plan: Plan, example: Tensor) -> nn.Module:
    """:func:`cut` with a whole plan."""
    return cut(model, plan.groups, example)


__all__ = ["apply_plan", "check_fits", "cut"]
