"""Which layers run, in which order, and which of them for some samples only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from coprune.layers import is_convolution, is_recurrent, norm_of
from coprune.tracing.forward import Inputs, copied, run, taking, tensors_of
from coprune.tracing.hooks import hooked


def products_of(model: nn.Module) -> list[str]:
    """Dense and recurrent layers and grouped convolutions, in the order of the model."""
    found = ((name, m) for name, m in model.named_modules() if name)
    return [n for n, m in found if is_convolution(m) or isinstance(m, nn.Linear) or is_recurrent(m)]


@torch.no_grad()
def execution_order(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Names of dense layers and norms in the order in which they first run, and how many values they make."""
    order: dict[str, int] = {}

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        for tensor in tensors_of(output)[:1]:
            if tensor.numel():  # an expert may be given no sample
                order.setdefault(name, tensor.numel())

    layers = [*products_of(model), *(name for name, layer in model.named_modules() if norm_of(layer))]
    with hooked(model, {name: partial(note, name) for name in layers}):
        run(model.eval(), copied(example))
    return order


def run_for_some(model: nn.Module, inputs: Sequence[Tensor]) -> set[str]:
    """Layers that run on some inputs and not on others, or on some of their samples, such as experts.

    Args:
        model: evaluated in evaluation mode.
        inputs: ``[N, …]`` each; two with samples of one shape show which layers some of these do not pass.

    Raises:
        UserError: the model does not take some of them.
    """
    products, ran = products_of(model), dict[torch.Size, tuple[int, dict[str, int]]]()
    everywhere, anywhere = set(products), set[str]()
    for x in inputs:
        with taking(model, x):
            made = execution_order(model, x)
        count, alike = ran.setdefault(x.shape[1:], (len(x), made))
        # Of twice as many samples a layer that all pass makes twice as much, or the same once for all.
        whole = {n for n, values in made.items() if alike.get(n, 0) in (values, values * count / len(x))}
        everywhere &= whole
        anywhere |= made.keys() & products
    return anywhere - everywhere
