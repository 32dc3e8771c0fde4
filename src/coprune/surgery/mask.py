"""A model whose removed units are silenced instead of cut: the reference that surgery must equal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coprune.plan import GroupDecision
from coprune.surgery.channels import check_fits
from coprune.units import channel_indices, unit_axis


@contextmanager
def masked(model: nn.Module, decisions: tuple[GroupDecision, ...]) -> Iterator[nn.Module]:
    """Within the context, consumers read 0 from every unit that was not kept.

    The mask sits where a unit is *read*, behind batch norm and activation: a channel that is cut
    contributes nothing there, while one that is only zeroed in the convolution would still leave
    its batch-norm shift.

    Args:
        model: changed by hooks only, and only within the context.
        decisions: what to silence.
    """
    check_fits(model, decisions)
    hooks = []
    for decision in decisions:
        removed = torch.tensor(sorted(set(range(decision.size)) - set(decision.kept)), dtype=torch.int64)
        for member in decision.members:
            if member.role != "consumer" or not len(removed):
                continue
            index = channel_indices(member, removed)
            consumer = model.get_submodule(member.layer)
            axis = unit_axis(consumer)

            def silence(
                _: nn.Module, inputs: tuple[Tensor, ...], index: Tensor = index, axis: int = axis
            ) -> tuple[Tensor, ...]:
                x = inputs[0].index_fill(axis, index.to(inputs[0].device), 0.0)
                return (x, *inputs[1:])

            hooks.append(consumer.register_forward_pre_hook(silence))
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
