"""A model whose removed units are silenced instead of cut: the reference that surgery must equal."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from coprune.groups import removed, removed_channels, unit_axis
from coprune.layers import channel_count, channels_axis, is_channel_norm, is_recurrent
from coprune.plan import GroupDecision
from coprune.surgery.cut import check_fits, slice_passing
from coprune.tracing.hooks import hooked


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
    silent: dict[str, list[Tensor]] = {}
    read: dict[str, list[Tensor]] = {}
    again: dict[str, list[Tensor]] = {}
    for _, member, channels in removed_channels(decisions):
        layer = model.get_submodule(member.layer)
        if member.role == "consumer":
            read.setdefault(member.layer, []).append(channels)
        elif is_recurrent(layer) and member.parameter is None:
            again.setdefault(member.layer, []).append(channels)
        elif is_channel_norm(layer) and member.parameter is None:
            silent.setdefault(member.layer, []).append(channels)
    silences = {n: _silencing(model.get_submodule(n), torch.cat(gone)) for n, gone in read.items()}
    norms = {n: _normalising(model.get_submodule(n), torch.cat(gone)) for n, gone in silent.items()}
    with hooked(model, silences, before=True), hooked(model, norms), ExitStack() as forgotten:
        for name, gone in again.items():
            forgotten.enter_context(_forgetting(model.get_submodule(name), torch.cat(gone)))
        yield model


@contextmanager
def _forgetting(layer: nn.Module, gone: Tensor) -> Iterator[None]:
    """Within the context a recurrent layer reads nothing of some of its own hidden units, ``[R]``."""
    had = channel_count(layer, "output") or 1
    first = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")
    weights = [p for name, p in layer.named_parameters() if name.startswith("weight") and name not in first]
    before = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:  # a later layer reads both directions of the one before
                times = torch.arange(weight.shape[1] // had).unsqueeze(1) * had
                weight[:, (times + gone).flatten().to(weight.device)] = 0.0
        yield
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, before, strict=True):
                weight.copy_(was)


def _silencing(layer: nn.Module, gone: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """A hook that lets a layer read 0 from some of its channels, ``[R]``."""
    axis = unit_axis(layer)

    def silence(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs[0].index_fill(axis, gone.to(inputs[0].device), 0.0), *inputs[1:]

    return silence


def _normalising(layer: nn.Module, gone: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """A hook that normalises without some of the channels, ``[R]``, and puts 0 in their place."""
    count = channel_count(layer, "output") or 0
    stays = removed(gone, count)
    fewer = copy.deepcopy(layer)
    for hooks in (fewer._forward_hooks, fewer._forward_pre_hooks):
        hooks.clear()
    slice_passing(fewer, gone)

    def norm(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept = stays.to(output.device)
        axis = channels_axis(layer, inputs[0].ndim, inputs[0])
        found = fewer.to(output.device)(inputs[0].index_select(axis, kept))
        return torch.zeros_like(output).index_copy(axis, kept, found)

    return norm
