"""Weights that a user has frozen, and that training moves all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
