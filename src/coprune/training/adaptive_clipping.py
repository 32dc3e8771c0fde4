"""Steps that no unit's weights are thrown away by."""

from __future__ import annotations

import torch
from torch import nn

_LEAST = 1e-3
"""Norm that weights of 0 are taken to have, so that they can grow (Brock et al. 2021, §4.1)."""


def limit_gradients(model: nn.Module, *, share: float) -> None:
    """Scale down the gradients of units that would change too much, in place.

    Adaptive gradient clipping (Brock et al. 2021, arXiv 2102.06171, equation 3): the gradient of an output
    unit's weights is no longer than a share of these weights; a bias or a norm's scale is one unit.

    Args:
        model: after the backward pass.
        share: λ > 0.
    """
    for parameter in model.parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        rows = gradient.flatten(1) if gradient.ndim > 1 else gradient.reshape(1, -1)
        weights = parameter.detach().reshape(rows.shape)
        longest = share * torch.linalg.vector_norm(weights, dim=1, keepdim=True).clamp_min(_LEAST)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        factor = longest / torch.maximum(length, longest)
        gradient.mul_(factor.reshape(-1, *[1] * (gradient.ndim - 1)) if gradient.ndim > 1 else factor[0])
