"""Weights that are computed anew in every pass (weight norm, masks, any ``parametrize``), taken once.

What such a layer computes with is an ordinary weight, but it stands nowhere: it cannot be cut, and what an
input contributes depends on the others. Taken once, the network computes what it did, a little faster.
Trained on, the weight is free: zeros of ``torch.nn.utils.prune`` stay as weights like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import cast

import torch
from torch import Tensor, nn
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
        if parametrize.is_parametrized(module) and (only is None or _of(name, module) & set(only)):
            _fold(module)
        for hook in list(_hooks(module)):
            if only is None or _full(name, _tensor(hook)) in only:
                _remove(module, hook)
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
    made: list[tuple[str, Tensor, Tensor]] = []
    for name, kind in cast(nn.ModuleDict, module.parametrizations).items():
        # Some keep one tensor, some several, such as length and direction; all are parameters, or none.
        first = next(
            t for part in (kind.named_parameters, kind.named_buffers) for _, t in part(recurse=False)
        )
        made.append((name, first, getattr(module, name).detach().clone()))
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, first, value in made:
        if isinstance(first, nn.Parameter):
            module.register_parameter(name, nn.Parameter(value, requires_grad=first.requires_grad))
        else:
            module.register_buffer(name, value)


Hook = WeightNorm | SpectralNorm | prune.BasePruningMethod
"""What puts a weight together before a pass, in PyTorch's older kind."""


def _tensor(hook: Hook) -> str:
    """Name of the tensor that a hook makes."""
    return hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name


def _remove(module: nn.Module, hook: Hook) -> None:
    if isinstance(hook, WeightNorm):
        remove_weight_norm(module, hook.name)
        return
    if isinstance(hook, prune.BasePruningMethod):
        prune.remove(module, hook._tensor_name)
        return
    remove_spectral_norm(module, hook.name)
    # PyTorch leaves the hook that looks for the tensors it has just removed: it is wrapped, and not found.
    found = module._load_state_dict_pre_hooks
    for key, wrapped in list(found.items()):
        if getattr(getattr(wrapped, "hook", wrapped), "fn", None) is hook:
            del found[key]


@torch.no_grad()
def made_copyable(model: nn.Module) -> nn.Module:
    """The model with no weight that remembers a pass, which cannot be copied; it computes the same.

    The older of PyTorch's two kinds leaves the weight of the last pass in the module, with its graph.
    """
    for module in model.modules():
        for hook in _hooks(module):
            setattr(module, _tensor(hook), getattr(module, _tensor(hook)).detach())
    return model


def _hooks(module: nn.Module) -> Iterator[Hook]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, Hook):
            yield hook


def _of(name: str, module: nn.Module) -> set[str]:
    return {_full(name, tensor) for tensor in cast(nn.ModuleDict, module.parametrizations)}


def _full(module: str, tensor: str) -> str:
    return f"{module}.{tensor}" if module else tensor
