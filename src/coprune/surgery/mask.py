"""A model whose removed units are silenced instead of cut: the reference that surgery must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
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

    A layer norm over channels is the one layer that a cut changes for the channels that stay: it then
    normalises over fewer of them (so does Torch-Pruning). Within the context it does too.

    Args:
        model: changed by hooks only, and only within the context.
        decisions: what to silence.
    """
    check_fits(model, decisions)
    hooks = []
    silent: dict[nn.LayerNorm, list[Tensor]] = {}
    for decision in decisions:
        removed = torch.tensor(sorted(set(range(decision.size)) - set(decision.kept)), dtype=torch.int64)
        for member in decision.members if len(removed) else ():
            norm = model.get_submodule(member.layer)
            if isinstance(norm, nn.LayerNorm) and member.parameter is None:
                silent.setdefault(norm, []).append(channel_indices(member, removed))
            if member.role != "consumer":
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
    for norm, parts in silent.items():
        stays = torch.ones(norm.normalized_shape[0], dtype=torch.bool)
        stays[torch.cat(parts)] = False
        hooks.append(norm.register_forward_hook(_normalising(stays)))
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def _normalising(stays: Tensor) -> Callable[[nn.LayerNorm, tuple[Tensor, ...], Tensor], Tensor]:
    """A hook that normalises over some of the channels, ``[C]`` bool, and puts 0 for the others."""

    def norm(layer: nn.LayerNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept = stays.nonzero().flatten().to(output.device)
        axis = _normalised_axis(layer, inputs[0], output)
        x = inputs[0].index_select(axis, kept).movedim(axis, -1)
        weight = None if layer.weight is None else layer.weight[kept]
        bias = None if layer.bias is None else layer.bias[kept]
        found = F.layer_norm(x, (len(kept),), weight, bias, layer.eps)
        return torch.zeros_like(output).index_copy(axis, kept, found.movedim(-1, axis))

    return norm


def _normalised_axis(layer: nn.LayerNorm, x: Tensor, output: Tensor) -> int:
    """The axis of a layer norm's channels: the last, but the second in what libraries call LayerNorm2d."""
    count = layer.normalized_shape[0]
    if x.shape[-1] != count:
        return 1
    if x.ndim < 3 or x.shape[1] != count:
        return -1
    # Both would do by their sizes: see which one it was.
    by_last = F.layer_norm(x, (count,), layer.weight, layer.bias, layer.eps)
    return -1 if torch.allclose(by_last, output, rtol=1e-4, atol=1e-5) else 1
