"""Layers that hide what their units are, replaced by ones that compute the same and can be cut."""

from __future__ import annotations

import torch
from torch import nn

from coprune.errors import UserError
from coprune.models.attention import separate_attention
from coprune.models.copies import copied, unwrapped
from coprune.models.memory_format import is_channels_last, laid_out, noted
from coprune.models.parametrizations import fold_reparametrised, made_copyable
from coprune.models.weight_standardization import fold_standardised


def made_ready(model: nn.Module) -> nn.Module:
    """The model with its heads apart, its weights computed once and in plain order; changed in place.

    Training from scratch wants neither, so a model is made ready only where it is to be cut.
    """
    return laid_out(fold_standardised(separate_attention(fold_reparametrised(model))))


def ready(model: nn.Module) -> nn.Module:
    """A copy of a user's model to work on: on the CPU, in evaluation mode, made ready.

    :func:`coprune.models.memory_format.as_given` lays it out as it was.

    See :func:`coprune.models.copies.copied` for what is taken off it.

    Raises:
        UserError: a TorchScript module, of which nothing can be cut; weights that are sharded over processes;
            a model that cannot be copied.
    """
    model = unwrapped(model)
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("a TorchScript module cannot be cut; give the nn.Module that it was made of")
    for name, parameter in model.named_parameters():
        if type(parameter.data).__name__ in ("DTensor", "FlatParameter") or "_flat_param" in name:
            raise UserError(
                f"'{name}' is sharded over processes (FSDP); load the full state dict into a plain module"
            )
    made = made_ready(copied(made_copyable(model)).cpu().eval())
    return noted(made, channels_last=is_channels_last(model))
