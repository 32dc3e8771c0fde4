"""Weights in the one order in memory that they have in a file.

A convolution whose weight is ``channels_last`` computes in that order, another sums in another order, and
the last bits of the two differ. A file knows of no order, so a model gets the plain one before anything is
measured on it, and the same model read from its file computes the same bits.
"""

from __future__ import annotations

import torch
from torch import nn


def laid_out(model: nn.Module) -> nn.Module:
    """The model with all its parameters and buffers in plain order; changed in place, no value is."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.layout is not torch.strided:
            continue
        # With one channel or one pixel both orders are contiguous; a convolution goes by the strides.
        if tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model
