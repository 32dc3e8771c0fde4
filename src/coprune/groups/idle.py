"""Layers that nothing which counts depends on: heads beside those that judge, a detector's second stage."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coprune.layers import is_dense, is_recurrent
from coprune.tracing.forward import FAILURES, Counts, Inputs, copied, run, tensors_of
from coprune.tracing.hooks import hooked
from coprune.tracing.modes import gradients


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
    weights = [p for m in layers.values() for p in m.parameters()]
    made: list[tuple[str, Tensor]] = []

    def note(name: str, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        made.extend((name, t) for t in tensors_of(output) if t.requires_grad)

    try:
        noting = hooked(model, {name: partial(note, name) for name in layers})
        with torch.enable_grad(), gradients(weights, True), noting:
            found = [t for t in counts(run(model.eval(), copied(example))) if t.requires_grad]
            total = torch.stack([t.abs().sum().float() for t in found]).sum()
            # By what layers make, of one sample; gradients by weights would take as much as the model.
            reached = torch.autograd.grad(total, [t for _, t in made], allow_unused=True)
    except FAILURES:
        return set()
    serving = {name for (name, _), gradient in zip(made, reached, strict=True) if gradient is not None}
    return {name for name, _ in made} - serving
