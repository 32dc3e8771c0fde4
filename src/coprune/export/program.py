"""A model as a graph that needs none of its code: ``torch.export`` with a free number of samples.

Whatever tree of tensors a model reads and hands back, the graph's inputs and outputs are a flat list with
names: keys and places joined by dots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.utils._pytree import tree_flatten, tree_unflatten

from coprune.errors import UserError, first_line
from coprune.tracing.forward import FAILURES, Inputs, run, samples_in, tensors_of

LOGITS, OUTPUT = "logits", "output"
"""What an exported model calls its output, where it has one without a name."""

_ENOUGH = 2
"""Samples to trace with: of a single one the tracer would conclude that there is never more than one."""

_TOKENS = ("input_ids", "attention_mask", "inputs_embeds")
"""Named inputs with any of these are tokens: as many as there are."""

Run = Callable[[Inputs], Sequence[Tensor]]
"""Inputs ``[N, …]`` → all outputs in their order."""


@dataclass(frozen=True)
class Traced:
    """A program, and what its inputs and outputs are called, in their order.

    Attributes:
        program: takes the inputs; hands back the output, or several by name.
        inputs: that it was traced with.
        reads, hands_back: names.
    """

    program: ExportedProgram
    inputs: Inputs
    reads: tuple[str, ...]
    hands_back: tuple[str, ...]


def named_tensors(tree: Any, *, alone: str, unnamed: str) -> dict[str, Tensor]:
    """All tensors of a tree by name, in its order; what else is in it, such as a cache, is passed over.

    Args:
        tree: tensors in mappings, sequences and dataclasses.
        alone: the name of a tensor that is the whole of it.
        unnamed: what a place is called that is a number alone: ``unnamed_0``.
    """
    return {
        (f"{unnamed}_{name}" if name[:1].isdigit() else name) or alone: tensor
        for name, tensor in _walked(tree, "")
    }


def _walked(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield name, tree
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        parts = tree.items()
    elif isinstance(tree, list | tuple):
        parts = zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True)
    elif dataclasses.is_dataclass(tree):
        parts = ((f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree))
    for key, part in parts:
        yield from _walked(part, f"{name}.{key}" if name else str(key))


def input_names(inputs: Inputs) -> tuple[str, ...]:
    """What the inputs of an exported model are called, in their order."""
    return tuple(_named_inputs(inputs))


def _named_inputs(inputs: Inputs) -> dict[str, Tensor]:
    images = isinstance(inputs, Tensor) and inputs.ndim == 4
    return named_tensors(inputs, alone="images" if images else "input", unnamed="input")


def outputs_of(model: nn.Module, inputs: Inputs, *, alone: str = LOGITS) -> dict[str, Tensor]:
    """All tensors that a forward pass hands back, by name; one without a name is called ``alone``."""
    return named_tensors(run(model, inputs), alone=alone, unnamed=OUTPUT)


class Flat(nn.Module):
    """Tensors in, tensors out, whatever trees the model takes and hands back.

    Args:
        model: to be traced.
        inputs: a tree as it reads; of what is no tensor in it the values stay.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        leaves, self.tree = tree_flatten(inputs)
        self.leaves = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]

    def forward(self, *tensors: Tensor) -> Tensor | dict[str, Tensor]:
        """Inputs ``[N, …]`` in their order → the output, or all by name."""
        given = iter(tensors)
        leaves = [next(given) if leaf is None else leaf[0] for leaf in self.leaves]
        found = outputs_of(self.model, tree_unflatten(leaves, self.tree))
        return next(iter(found.values())) if len(found) == 1 else found


def free_axes(inputs: Inputs, batch: Any, sequence: Any) -> dict[str, tuple[dict[int, Any], ...]]:
    """Which axes of every input are free, as ``torch.export`` and ``torch.onnx`` want to be told.

    Args:
        inputs: named ones may be tokens ``[N, T]``; of others the number of samples alone is free.
        batch, sequence: what stands for the two axes; what a decoder reads is as long as it likes.
    """
    tokens = isinstance(inputs, dict) and not inputs.keys().isdisjoint(_TOKENS)
    axes: list[dict[int, Any]] = []
    for name, tensor in _named_inputs(inputs).items():
        own = f"decoder_{sequence}" if name.startswith("decoder_") and isinstance(sequence, str) else sequence
        names = (batch, own) if tokens and tensor.ndim == 2 else (batch,)
        axes.append(dict(enumerate(names[: tensor.ndim])))
    return {"tensors": tuple(axes)}


def traced_program(model: nn.Module, inputs: Inputs, *, alone: str = LOGITS) -> Traced:
    """Trace a model on the CPU in evaluation mode.

    Args:
        model: left as it is.
        inputs: at least two samples.
        alone: what an output without a name is called.

    Returns:
        A program from the inputs, in their order, to all outputs; ``N`` and ``T`` are free.

    Raises:
        UserError: the model does what cannot be traced, or only for a fixed number of samples or tokens; it
            reads a list of samples of their own sizes.
        ValueError: too few samples.
    """
    if samples_in(inputs) < _ENOUGH:
        raise ValueError(f"{samples_in(inputs)} sample to trace with; give {_ENOUGH}")
    if isinstance(inputs, list):
        raise UserError(
            f"this {type(model).__name__} reads a list of samples, and no format has a free number of "
            "inputs; export the network inside it"
        )
    whole = Flat(model.cpu().eval(), inputs).eval()
    # How long a text may be is up to the model's table of positions, so the tracer finds it out.
    axes = free_axes(inputs, Dim("batch"), Dim.DYNAMIC)
    try:
        with torch.no_grad():
            program = export(whole, tuple(tensors_of(inputs)), dynamic_shapes=axes, strict=False)
            found = outputs_of(model, inputs, alone=alone)
    except FAILURES as cause:
        raise UserError(
            f"this {type(model).__name__} cannot be exported for any number of samples "
            f"({first_line(cause)}); its forward pass must not depend on values or on a fixed size"
        ) from cause
    reads = input_names(inputs)
    # In an ONNX graph a name stands for one thing.
    return Traced(program, inputs, reads, tuple(f"output_{n}" if n in reads else n for n in found))
