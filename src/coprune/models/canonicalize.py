"""A model in the one form that is worked on: steps that replace what hides the units of a layer.

Every step computes what was computed before. Trained and saved is the replaced form, and ``model.json`` lists
what was replaced, so that loading takes the same steps. The last step, the order of weights in memory, is
undone before a model is measured and handed out (:func:`restore_format`): a convolution whose weight is
``channels_last`` computes in that order, another sums in another order, and the last bits of the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from coprune.errors import UserError
from coprune.models.attention import separate_attention, separated_in
from coprune.models.copies import copied, unwrapped
from coprune.models.parametrizations import fold_reparametrised
from coprune.models.weight_standardization import fold_standardised, folded_in


@dataclass(frozen=True)
class Step:
    """One replacement.

    Attributes:
        apply: to a model in place; ``only`` names what is replaced, None: all.
        replaced: model → names of the modules that it has put there.
    """

    apply: Callable[..., nn.Module]
    replaced: Callable[[nn.Module], tuple[str, ...]]


STEPS: dict[str, Step] = {
    "parametrizations": Step(fold_reparametrised, lambda _: ()),  # names of tensors say what is plain
    "separated": Step(separate_attention, separated_in),
    "folded": Step(fold_standardised, folded_in),
}
"""In their order; by the name that ``model.json`` lists the replaced modules under."""


def canonicalize(model: nn.Module, *, only: Mapping[str, Collection[str]] | None = None) -> nn.Module:
    """The model with its heads apart, its weights computed once and in plain order; changed in place.

    Training from scratch wants neither, so this is done only where a model is to be cut.

    Args:
        model: changed in place.
        only: step → what it replaces; None: all.
    """
    for name, step in STEPS.items():
        step.apply(model, only=None if only is None else only[name])
    for tensor in (*model.parameters(), *model.buffers()):
        # With one channel or one pixel both orders are contiguous; a convolution goes by the strides.
        plain = torch.empty(tensor.shape, device="meta").stride()
        if tensor.layout is torch.strided and tensor.stride() != plain:
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model


def replaced_in(model: nn.Module) -> dict[str, Any]:
    """What ``model.json`` says of a model's form: the modules that steps put there, the order in memory."""
    found: dict[str, Any] = {name: step.replaced(model) for name, step in STEPS.items()}
    found["channels_last"] = is_channels_last(model)
    return {name: value for name, value in found.items() if value}


def canonical_copy(model: nn.Module) -> nn.Module:
    """A copy of a user's model to work on: on the CPU, in evaluation mode, canonical.

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
    made = canonicalize(copied(model).cpu().eval())
    made._coprune_channels_last = is_channels_last(model)  # type: ignore[assignment]
    return made


def is_channels_last(model: nn.Module) -> bool:
    """Whether a model's weights are ``channels_last``; those of which both can be said do not count."""
    maps = [t for t in model.parameters() if t.ndim == 4]
    return not all(t.is_contiguous() for t in maps) and all(
        t.is_contiguous(memory_format=torch.channels_last) for t in maps
    )


def restore_format(model: nn.Module, *, channels_last: bool | None = None) -> nn.Module:
    """The model in the order in memory that its user had it in; changed in place, no value is.

    Args:
        model: changed in place.
        channels_last: whether it was; None: as :func:`canonical_copy` noted, which copies remember.
    """
    if channels_last is None:
        channels_last = bool(getattr(model, "_coprune_channels_last", False))
    for tensor in (*model.parameters(), *model.buffers()) if channels_last else ():
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model
