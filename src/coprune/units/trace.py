"""Torch-Pruning's dependency graph of a model, and what it says goes with a layer's channels."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from coprune.errors import UserError
from coprune.forward import Inputs

_UNTRACEABLE = (
    RuntimeError, ValueError, LookupError, AttributeError, TypeError, AssertionError, ArithmeticError
)  # fmt: skip


class _Regrouped(torch.autograd.Function):
    """A view that Torch-Pruning does not take for a flattened map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: torch.Size) -> Tensor:
        ctx.shape = x.shape
        return x.reshape(shape).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.reshape(ctx.shape), None


class _Shuffles(TorchFunctionMode):
    """Within the context, maps that are split into groups of channels and back pass as they are.

    Torch-Pruning (1.6.1) takes a channel shuffle's reshape for a flattening, and divides by 0.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        reshaped = getattr(func, "__name__", "") in ("view", "reshape") and isinstance(args[0], Tensor)
        if reshaped and {args[0].ndim, made.ndim} == {4, 5}:
            return _Regrouped.apply(args[0], made.shape)
        return made


def trace(model: nn.Module, example: Inputs) -> tp.DependencyGraph:
    """The dependency graph of a model.

    Args:
        model: its forward pass is run once with gradients on.
        example: one or more samples ``[N, …]``.

    Raises:
        UserError: Torch-Pruning cannot follow the model.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        with warnings.catch_warnings(), torch.enable_grad(), _Shuffles():
            warnings.simplefilter("ignore")
            # Tracing follows gradients; a frozen backbone would look like a constant.
            for parameter in frozen:
                parameter.requires_grad_(True)
            return tp.DependencyGraph().build_dependency(model.eval(), example_inputs=example)
    except _UNTRACEABLE as cause:
        raise UserError(
            f"the dependency graph of {type(model).__name__} cannot be traced: "
            f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"
        ) from cause
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def whole_group(graph: tp.DependencyGraph, root: nn.Module) -> tp.dependency.Group | str:
    """What goes with each of a layer's output channels; or why Torch-Pruning cannot say."""
    pruner = graph.get_pruner_of_module(root)
    try:
        return graph.get_pruning_group(
            root, pruner.prune_out_channels, list(range(pruner.get_out_channels(root)))
        )
    except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError) as cause:
        return f"coupled: Torch-Pruning cannot follow its channels ({type(cause).__name__}: {cause})"
