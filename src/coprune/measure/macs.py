"""Multiply-accumulate operations (MACs): one multiply-add counts one.

Counted by ``torch.utils.flop_counter`` (convolutions and matrix products; 2 FLOPs are one MAC), so a
3×3 convolution from 16 to 16 channels on 28×28 pixels is 9·16·16·784 = 1,806,336 MACs. Batch norm,
activations and pooling are not counted, as in the literature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coprune.forward import Inputs, logits_of
from coprune.measure.mode import evaluating


@dataclass(frozen=True)
class LayerCost:
    """MACs and parameters of one layer for one sample."""

    name: str
    macs: int
    params: int


@torch.no_grad()
def layer_costs(model: nn.Module, example: Inputs) -> list[LayerCost]:
    """What every layer costs for one sample, in the order of the module tree.

    Args:
        model: any module.
        example: one sample with a batch dimension, ``[1, …]``.
    """
    with evaluating(model), FlopCounterMode(display=False) as counter:
        logits_of(model, example)
    # The counter's totals are inclusive and named with the root class in front.
    root = type(model).__name__
    totals = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    found = []
    for name, module in model.named_modules():
        path = f"{root}.{name}" if name else root
        inside = sum(totals.get(f"{path}.{child}", 0) for child, _ in module.named_children())
        # What a module computes itself, e.g. a matrix product in its forward, is its own.
        macs = totals.get(path, 0) - inside
        params = sum(p.numel() for p in module.parameters(recurse=False))
        if macs or params or not any(True for _ in module.children()):
            found.append(LayerCost(name, macs, params))
    return found


@torch.no_grad()
def count_macs(model: nn.Module, example: Inputs) -> int:
    """MACs of one forward pass of ``example`` ``[1, …]``."""
    with evaluating(model), FlopCounterMode(display=False) as counter:
        logits_of(model, example)
    return int(counter.get_total_flops()) // 2


def count_params(model: nn.Module) -> int:
    """Number of parameters, each shared one once."""
    return sum(p.numel() for p in model.parameters())
