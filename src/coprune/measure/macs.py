"""Multiply-accumulate operations (MACs): one multiply-add counts one.

Counted by ``torch.utils.flop_counter`` (convolutions and matrix products; 2 FLOPs are one MAC), so a
3×3 convolution from 16 to 16 channels on 28×28 pixels is 9·16·16·784 = 1,806,336 MACs. Batch norm,
activations and pooling are not counted, as in the literature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class LayerCost:
    """MACs and parameters of one layer for one sample."""

    name: str
    macs: int
    params: int


@torch.no_grad()
def layer_costs(model: nn.Module, example: Tensor) -> list[LayerCost]:
    """What every layer costs for one sample, in the order of the module tree.

    Args:
        model: any module.
        example: one sample with a batch dimension, ``[1, …]``.
    """
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(example)
    model.train(was_training)
    # The counter names modules with the root class in front; a leaf's total is all of its operations.
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    root = type(model).__name__
    return [
        LayerCost(
            name,
            counts.get(f"{root}.{name}", 0) // 2,
            sum(p.numel() for p in module.parameters(recurse=False)),
        )
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    ]


@torch.no_grad()
def count_macs(model: nn.Module, example: Tensor) -> int:
    """MACs of one forward pass of ``example`` ``[1, …]``."""
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(example)
    model.train(was_training)
    return int(counter.get_total_flops()) // 2


def count_params(model: nn.Module) -> int:
    """Number of parameters, each shared one once."""
    return sum(p.numel() for p in model.parameters())
