"""A classifier as a graph that needs none of its code: ``torch.export`` with a free batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from coprune.errors import UserError, first_line
from coprune.tracing.forward import FAILURES, Inputs, logits_of, samples_in, tensors_of

IMAGES = "images"
"""What an exported image model calls its input."""

_ENOUGH = 2
"""Samples to trace with: of a single one the tracer would conclude that there is never more than one."""


def input_names(inputs: Inputs) -> tuple[str, ...]:
    """What the inputs of an exported model are called, in their order."""
    return tuple(inputs) if isinstance(inputs, dict) else (IMAGES,)


class LogitsOnly(nn.Module):
    """Tensors in, logits out, whatever the model's own outputs are.

    Args:
        model: a classifier.
        names: of the inputs, when the model takes them by name.
    """

    def __init__(self, model: nn.Module, names: Sequence[str] | None) -> None:
        super().__init__()
        self.model, self.names = model, None if names is None else tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Inputs ``[N, …]`` → logits ``[N, C]``."""
        named = self.names and dict(zip(self.names, tensors, strict=True))
        return logits_of(self.model, named or tensors[0])


def free_axes(inputs: Inputs, batch: Any, sequence: Any) -> dict[str, tuple[dict[int, Any], ...]]:
    """Which axes of every input are free, as ``torch.export`` and ``torch.onnx`` want to be told.

    Args:
        inputs: named ones are tokens ``[N, T]``; an image has a free number of samples only.
        batch, sequence: what stands for the two axes.
    """
    tokens = isinstance(inputs, dict)
    axes = ({0: batch, 1: sequence} if tokens and t.ndim == 2 else {0: batch} for t in tensors_of(inputs))
    return {"tensors": tuple(axes)}


def traced_program(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    """Trace a model on the CPU in evaluation mode.

    Args:
        model: left as it is.
        inputs: at least two samples.

    Returns:
        A program from the inputs, in their order, to logits ``[N, C]``; ``N`` and ``T`` are free.

    Raises:
        UserError: the model does what cannot be traced, or only for a fixed number of samples or tokens.
        ValueError: too few samples.
    """
    if samples_in(inputs) < _ENOUGH:
        raise ValueError(f"{samples_in(inputs)} sample to trace with; give {_ENOUGH}")
    names = tuple(inputs) if isinstance(inputs, dict) else None
    whole = LogitsOnly(model.cpu().eval(), names).eval()
    # How long a text may be is up to the model's table of positions, so the tracer finds it out.
    axes = free_axes(inputs, Dim("batch"), Dim.DYNAMIC)
    try:
        with torch.no_grad():
            return export(whole, tuple(tensors_of(inputs)), dynamic_shapes=axes, strict=False)
    except FAILURES as cause:
        raise UserError(
            f"this {type(model).__name__} cannot be exported for any number of samples "
            f"({first_line(cause)}); its forward pass must not depend on values or on a fixed size"
        ) from cause
