"""Weights in the one order in memory that they have in a file.

A convolution whose weight is ``channels_last`` computes in that order, another sums in another order, and
the last bits of the two differ. So a model gets the plain order before anything is computed with it, and gets
its own back before its latency is measured and it is handed out; ``model.json`` says which that is.
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


_NOTE = "_coprune_channels_last"


def is_channels_last(model: nn.Module) -> bool:
    """Whether a model is laid out as ``channels_last``; one of whose weights that cannot be said is not."""
    told = [t for t in model.parameters() if t.ndim == 4 and not t.is_contiguous()]
    maps = (t for t in model.parameters() if t.ndim == 4)
    return bool(told) and all(t.is_contiguous(memory_format=torch.channels_last) for t in maps)


def noted(model: nn.Module, *, channels_last: bool) -> nn.Module:
    """The model, which remembers, as its copies do, the order that its user had it in."""
    setattr(model, _NOTE, channels_last)
    return model


def as_given(model: nn.Module) -> nn.Module:
    """The model in the order that its user had it in; changed in place, no value is."""
    for tensor in (*model.parameters(), *model.buffers()) if getattr(model, _NOTE, False) else ():
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model
