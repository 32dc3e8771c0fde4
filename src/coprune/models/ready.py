"""Layers that hide what their units are, replaced by ones that compute the same and can be cut."""

from __future__ import annotations

import copy

import torch
from torch import nn

from coprune.errors import UserError
from coprune.models.attention import separate_attention
from coprune.models.reparametrised import fold_reparametrised, made_copyable
from coprune.models.standardised import fold_standardised


def made_ready(model: nn.Module) -> nn.Module:
    """The model with its heads apart and its weights computed once; changed in place.

    Training from scratch wants neither, so a model is made ready only where it is to be cut.
    """
    return fold_standardised(separate_attention(fold_reparametrised(model)))


def ready(model: nn.Module) -> nn.Module:
    """A copy of a user's model to work on: on the CPU, in evaluation mode, made ready.

    Of a model that ``torch.compile`` made, the one it was made of.

    Raises:
        UserError: a TorchScript module, of which nothing can be cut.
    """
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("a TorchScript module cannot be cut; give the nn.Module that it was made of")
    return made_ready(copy.deepcopy(made_copyable(model)).cpu().eval())
