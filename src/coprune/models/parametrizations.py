"""Weights that are computed anew in every pass (weight norm, masks, any ``parametrize``), taken once.

What such a layer computes with is an ordinary weight, but it stands nowhere: it cannot be cut, and what an
input contributes depends on the others. Taken once, the network computes what it did, a little faster.
Trained on, the weight is free: zeros of ``torch.nn.utils.prune`` stay as weights like any other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def fold_reparametrised(model: nn.Module, *, only: Collection[str] | None = None) -> nn.Module:
    """Put the weight that comes out of it in the place of every reparametrised one.

    Args:
        model: changed in place.
        only: names of tensors, such as ``conv.weight``; None: all.

    Returns:
        The model.
    """
    modes = {module: module.training for module in model.modules()}
    # In training spectral norm would first take another step of its own.
    model.eval()
    for name, module in list(model.named_modules()):
        tensors = cast(nn.ModuleDict, module.parametrizations) if parametrize.is_parametrized(module) else ()
        if any(only is None or f"{name}.{tensor}".lstrip(".") in only for tensor in tensors):
            _fold(module)
        for hook in list(module._forward_pre_hooks.values()):
            # PyTorch's older kind puts a weight together before a pass.
            tensor = getattr(
                hook, "_tensor_name" if isinstance(hook, prune.BasePruningMethod) else "name", ""
            )
            if only is None or f"{name}.{tensor}".lstrip(".") in only:
                _remove(module, hook, tensor)
    # One by one: a part may be frozen in a model that trains.
    for module, training in modes.items():
        module.training = training
    return model


@torch.no_grad()
def _fold(module: nn.Module) -> None:
    """All of a module's parametrised tensors become plain ones.

    PyTorch's own removal takes the tensor's property off the module's class, which copies share with the
    module they were made from: that one would be broken.
    """
    values = {}
    for name, kind in cast(nn.ModuleDict, module.parametrizations).items():
        # Some keep one tensor, some several, such as length and direction; all are parameters, or none.
        first = [*kind.parameters(recurse=False), *kind.buffers(recurse=False)][0]
        values[name] = first, getattr(module, name).detach().clone()
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, (first, value) in values.items():
        if isinstance(first, nn.Parameter):
            module.register_parameter(name, nn.Parameter(value, requires_grad=first.requires_grad))
        else:
            module.register_buffer(name, value)


def _remove(module: nn.Module, hook: object, tensor: str) -> None:
    """Take PyTorch's older kind of a hook off, if it is one."""
    if isinstance(hook, WeightNorm):
        remove_weight_norm(module, tensor)
    elif isinstance(hook, prune.BasePruningMethod):
        prune.remove(module, tensor)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(module, tensor)
        # PyTorch leaves the hook that looks for the tensors it has just removed: wrapped, it is not found.
        found = module._load_state_dict_pre_hooks
        for key, wrapped in list(found.items()):
            if getattr(getattr(wrapped, "hook", wrapped), "fn", None) is hook:
                del found[key]
