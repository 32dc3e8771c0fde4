"""A model in another state for a while: in evaluation mode, or with weights that have no gradients or do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode within the context. ``train()`` afterwards would wake frozen batch norms too."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def gradients(parameters: Iterable[Tensor], wanted: bool) -> Iterator[None]:
    """Within the context these parameters have gradients, or have none; afterwards it is as it was.

    Args:
        parameters: those that are numbers with a point can be given gradients, those of any kind none.
        wanted: which of the two.
    """
    changed = [p for p in parameters if p.requires_grad != wanted and (not wanted or p.is_floating_point())]
    for parameter in changed:
        parameter.requires_grad_(wanted)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(not wanted)
