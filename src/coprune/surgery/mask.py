"""A model whose removed units are silenced instead of cut: the reference that surgery must equal."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import Tensor, nn

from coprune.groups import in_blocks, removed, removed_channels, unit_axis
from coprune.layers import READING, channel_count, channels_axis, is_channel_norm, is_recurrent
from coprune.plan import GroupDecision
from coprune.surgery.cut import check_fits, slice_passing
from coprune.tracing.hooks import hooked

_Change = Callable[[nn.Module, Tensor], AbstractContextManager[None]]


@contextmanager
def masked(model: nn.Module, decisions: tuple[GroupDecision, ...]) -> Iterator[nn.Module]:
    """Within the context, consumers read 0 from every unit that was not kept.

    The mask sits where a unit is *read*, behind batch norm and activation: a channel that is cut
    contributes nothing there, while one that is only zeroed in the convolution would still leave
    its batch-norm shift.

    Norms over channels are the one layer that a cut changes for the channels that stay: they then
    normalise over fewer of them (as in Torch-Pruning). Within the context they do too.

    Args:
        model: changed by hooks only, and only within the context.
        decisions: what to silence.
    """
    check_fits(model, decisions)
    parts: dict[tuple[str, _Change], list[Tensor]] = defaultdict(list)
    for _, member, channels in removed_channels(decisions):
        layer = model.get_submodule(member.layer)
        if member.role == "consumer":
            parts[member.layer, _silenced].append(channels)
        elif is_recurrent(layer) and member.parameter is None:
            parts[member.layer, _forgetting].append(channels)
        elif is_channel_norm(layer) and member.parameter is None:
            parts[member.layer, _normalised].append(channels)
    with ExitStack() as changes:
        for (name, change), gone in parts.items():
            changes.enter_context(change(model.get_submodule(name), torch.cat(gone)))
        yield model


@contextmanager
def _forgetting(layer: nn.Module, gone: Tensor) -> Iterator[None]:
    """Within the context a recurrent layer reads nothing of some of its own hidden units, ``[R]``."""
    had = channel_count(layer, "output") or 1
    weights = [p for n, p in layer.named_parameters() if n.startswith("weight") and n not in READING]
    before = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:  # a later layer reads both directions of the one before
                weight[:, in_blocks(gone, had, weight.shape[1]).to(weight.device)] = 0.0
        yield
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, before, strict=True):
                weight.copy_(was)


def _silenced(layer: nn.Module, gone: Tensor) -> AbstractContextManager[None]:
    """Within the context a layer reads 0 from some of its channels, ``[R]``."""
    axis = unit_axis(layer)

    def silence(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs[0].index_fill(axis, gone.to(inputs[0].device), 0.0), *inputs[1:]

    return hooked(layer, {"": silence}, before=True)


def _normalised(layer: nn.Module, gone: Tensor) -> AbstractContextManager[None]:
    """Within the context a norm runs without some of the channels, ``[R]``, and puts 0 in their place."""
    stays = removed(gone, channel_count(layer, "output") or 0)
    fewer = copy.deepcopy(layer)
    for hooks in (fewer._forward_hooks, fewer._forward_pre_hooks):
        hooks.clear()
    slice_passing(fewer, gone)

    def norm(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept = stays.to(output.device)
        axis = channels_axis(layer, inputs[0].ndim, inputs[0])
        found = fewer.to(output.device)(inputs[0].index_select(axis, kept))
        return torch.zeros_like(output).index_copy(axis, kept, found)

    return hooked(layer, {"": norm})
