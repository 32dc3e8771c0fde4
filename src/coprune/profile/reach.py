"""Which places of a layer's output can reach the prediction at all.

In a transformer not every token counts: padding does not, and in the last layer only the token that is
classified. An error made elsewhere costs nothing, so a regression must not spend itself there. Told by
the gradient: a place whose output has no gradient has no say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coprune.forward import Inputs, logits_of


def has_tokens(layer: nn.Module, output: Tensor) -> bool:
    """Whether the layer is applied at several places that may not all count: a linear one, to tokens."""
    return not isinstance(layer, nn.Conv2d) and output.ndim > 2


@torch.enable_grad()
def reach(model: nn.Module, inputs: Inputs, names: Sequence[str]) -> dict[str, Tensor]:
    """Places of each layer's output that the logits depend on.

    Args:
        model: in evaluation mode; its parameters' gradients are left alone.
        inputs: ``[N, …]``.
        names: layers that run once.

    Returns:
        Layer → ``[N, places]`` bool, for those layers that are applied to tokens.
    """
    outputs: dict[str, Tensor] = {}

    def keep(layer: nn.Module, _: object, output: Tensor, name: str) -> None:
        if has_tokens(layer, output):
            # Of a frozen model, such an output begins the graph.
            outputs[name] = output if output.requires_grad else output.requires_grad_()

    handles = [
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: keep(m, i, o, name))
        for name in names
    ]
    try:
        logits = logits_of(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not outputs:
        return {}
    # Uneven weights, so that no gradient cancels: those of a softmax's logits sum to 0.
    weights = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)) + 0.5
    gradients = torch.autograd.grad(
        (logits * weights.to(logits)).sum(), list(outputs.values()), materialize_grads=True
    )
    return {
        name: (gradient != 0).any(-1).flatten(1) for name, gradient in zip(outputs, gradients, strict=True)
    }
