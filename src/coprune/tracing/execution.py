"""Which layers run, in which order, and which of them for some samples only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
def execution_order(model: nn.Module, example: Inputs) -> dict[str, torch.Size]:
    """Dense layers and norms by name, in the order in which they first run, and shapes of what they make."""
    order: dict[str, torch.Size] = {}

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        for tensor in tensors_of(output)[:1]:
            if tensor.numel():  # an expert may be given no sample
                order.setdefault(name, tensor.shape)

    layers = [*products_of(model), *(name for name, layer in model.named_modules() if norm_of(layer))]
    with hooked(model, {name: partial(note, name) for name in layers}):
        run(model.eval(), copied(example))
    return order


def run_for_some(model: nn.Module, inputs: Sequence[Tensor]) -> set[str]:
    """Layers that run on some inputs and not on others, or on some of their samples, such as experts.

    Args:
        model: evaluated in evaluation mode.
        inputs: ``[N, …]`` each; two with samples of one shape show which layers some of these do not pass,
            unless ``N`` is a number of channels.

    Raises:
        UserError: the model does not take some of them.
    """
    products, ran = products_of(model), dict[torch.Size, _Ran]()
    # Packed sequences have a row for every real step.
    packed = {name for name in products if is_recurrent(model.get_submodule(name))}
    everywhere, anywhere = set(products), set[str]()
    for x in inputs:
        with taking(model, x):
            made = execution_order(model, x)
        alike = ran.setdefault(x.shape[1:], (len(x), made))
        everywhere &= {
            n for n in made if n in alike[1] and (n in packed or _all_pass(n, alike, (len(x), made)))
        }
        anywhere |= made.keys() & products
    return anywhere - everywhere


_Ran = tuple[int, Mapping[str, torch.Size]]
"""Samples, and layer → shape of what it made of them."""


def _all_pass(name: str, one: _Ran, other: _Ran) -> bool:
    """Whether a layer makes something of every sample, or the same once for all of them."""
    before, now = one[1][name], other[1][name]
    return other[0] in now or before == now or now[0] * one[0] == before[0] * other[0]
