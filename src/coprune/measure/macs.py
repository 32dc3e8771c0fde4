"""Multiply-accumulate operations (MACs): one multiply-add counts one.

Counted by ``torch.utils.flop_counter`` (convolutions and matrix products; 2 FLOPs are one MAC), so a
3×3 convolution from 16 to 16 channels on 28×28 pixels is 9·16·16·784 = 1,806,336 MACs. Batch norm,
activations and pooling are not counted, as in the literature.

Attention counts its two products whichever way it is computed: ``H`` heads of ``d`` channels over ``T``
tokens are 2·H·d·T² MACs, causal or not. PyTorch's counter has no entry for its fused CPU kernels and
would count nothing there, so that eager attention would seem dearer than the same done at once. For the
same reason LSTMs and bilinear layers, each one operation on a CPU, have formulas of their own here: an LSTM
of ``H`` units that reads ``D`` features over ``T`` steps is 4·H·(D + H)·T MACs a direction.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coprune.tracing.forward import Inputs, run
from coprune.tracing.hooks import hooked
from coprune.tracing.modes import evaluating, gradients


@dataclass(frozen=True)
class LayerCost:
    """MACs and parameters of one layer for one sample."""

    name: str
    macs: int
    params: int


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    """FLOPs of queries ``[N, H, T, d]`` with keys and values ``[N, heads, S, d]``, two a MAC."""
    samples, heads, tokens, channels = query
    return 2 * samples * heads * tokens * key[-2] * (channels + value[-1])


def _lstm_flops(steps: torch.Size, reads: torch.Size, recurs: torch.Size, *_: object, **__: object) -> int:
    """FLOPs of one layer and direction over ``[T, N, D]``, all gates' weights ``[4H, D]`` and ``[4H, H]``."""
    return 2 * math.prod(steps[:-1]) * (math.prod(reads) + math.prod(recurs))


def _bilinear_flops(first: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    """FLOPs of ``[N, A]`` and ``[N, B]`` with weights ``[U, A, B]``, as many as of the same ``einsum``.

    The first is multiplied with the weights, what comes of it with the second.
    """
    units, one, other = weight
    return 2 * first[0] * units * other * (one + 1)


_FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,  # PyTorch calls it for LSTMs only
    torch.ops.aten._trilinear: _bilinear_flops,
}


@contextmanager
def _counting(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Count within the context, in evaluation mode and with no kernel that hides its products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False, custom_mapping=_FUSED)
    torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention as one operation
    try:
        # The counter hooks gradients, which nothing has here.
        with gradients(model.parameters(), False), evaluating(model), counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _by_module(model: nn.Module, counter: FlopCounterMode) -> Iterator[Counter[str]]:
    """Module name → FLOPs that the module computes itself, its children's apart.

    The counter has a table of its own, under the last name of a module that has several and with nothing
    for a module that is called past its parent. Here a module has its first name, as everywhere else.
    """
    names = {module: name for name, module in model.named_modules()}
    own: Counter[str] = Counter()
    running = [""]  # What is computed outside of all modules is the whole network's.

    def note(*_: object) -> None:
        # Nothing but the innermost module has computed since the last call.
        own[running[-1]] += counter.get_total_flops() - own.total()

    def enter(module: nn.Module, _: object) -> None:
        note()
        running.append(names[module])

    def leave(*_: object) -> None:
        note()
        running.pop()

    # A network may catch what one of its modules raises and go on.
    before, behind = dict.fromkeys(names.values(), enter), dict.fromkeys(names.values(), leave)
    with hooked(model, before, before=True), hooked(model, behind, always=True):
        yield own
    note()


@torch.no_grad()
def layer_costs(model: nn.Module, example: Inputs) -> list[LayerCost]:
    """What every layer costs for one sample, in the order of the module tree.

    Args:
        model: any module.
        example: one sample with a batch dimension, ``[1, …]``.
    """
    with _counting(model) as counter, _by_module(model, counter) as flops:
        run(model, example)
    found = []
    for name, module in model.named_modules():
        macs = flops[name] // 2
        params = sum(p.numel() for p in module.parameters(recurse=False))
        if macs or params or not any(True for _ in module.children()):
            found.append(LayerCost(name, macs, params))
    return found


@torch.no_grad()
def count_macs(model: nn.Module, example: Inputs) -> int:
    """MACs of one forward pass of ``example`` ``[1, …]``."""
    with _counting(model) as counter:
        run(model, example)
    return int(counter.get_total_flops()) // 2


def count_params(model: nn.Module) -> int:
    """Number of parameters, each shared one once."""
    return sum(p.numel() for p in model.parameters())
