"""Layers that nothing which counts depends on: heads beside those that judge, a detector's second stage."""

from __future__ import annotations

import torch
from torch import nn

from coprune.layers import is_dense, is_recurrent
from coprune.tracing.forward import FAILURES, Counts, Inputs, copied, run


def idle_layers(model: nn.Module, example: Inputs, counts: Counts) -> set[str]:
    """Dense layers and recurrent ones that no gradient of what counts reaches.

    Whatever is cut there, nothing that is compared changes, so nothing would say what may go.

    Args:
        model: run once in evaluation mode; left as it is.
        example: one or more samples.
        counts: takes what counts out of what the model hands back.

    Returns:
        Their names; nothing where the model's output has no gradient.
    """
    layers = {n: m for n, m in model.named_modules() if is_dense(m) or is_recurrent(m)}
    weights = {n: [p for p in m.parameters() if p.is_floating_point()] for n, m in layers.items()}
    flat = [p for of in weights.values() for p in of]
    before = [p.requires_grad for p in flat]
    try:
        with torch.enable_grad():
            for parameter in flat:
                parameter.requires_grad_(True)
            found = [t for t in counts(run(model.eval(), copied(example))) if t.requires_grad]
            total = torch.stack([t.abs().sum().float() for t in found]).sum()
            reached = torch.autograd.grad(total, flat, allow_unused=True)
    except FAILURES:
        return set()
    finally:
        for parameter, had in zip(flat, before, strict=True):
            parameter.requires_grad_(had)
    lost = {id(p) for p, gradient in zip(flat, reached, strict=True) if gradient is None}
    return {n for n, of in weights.items() if of and all(id(p) in lost for p in of)}
