"""Weights that a user has frozen, and that training moves all the same; and others, which it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def thawed(model: nn.Module) -> Iterator[None]:
    """Within the context every weight is trained; afterwards those that were frozen are frozen again.

    Args:
        model: changed in place.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def frozen(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Within the context these are not trained.

    Args:
        parameters: those that are trained otherwise.
    """
    still = [p for p in parameters if p.requires_grad]
    for parameter in still:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
