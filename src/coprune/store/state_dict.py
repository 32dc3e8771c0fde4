"""Whether a state dict is that of a model: the one check of names, shapes, kinds of numbers and values."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from coprune.errors import UserError, shown
from coprune.models.copies import put_state


def type_of(tensor: Tensor) -> str:
    """The name of a tensor's type in messages."""
    return str(tensor.dtype).removeprefix("torch.")


def numbers_of(tensor: Tensor) -> str:
    """The kind of a tensor's numbers; kinds do not stand for one another, precisions do."""
    if tensor.is_complex() or tensor.is_floating_point():
        return "complex" if tensor.is_complex() else "real"
    return "bool" if tensor.dtype == torch.bool else "whole"


def check_weights(tensors: Mapping[str, Tensor], model: nn.Module, *, where: str, origin: str = "") -> None:
    """Refuse a state dict of another network; values are not looked at.

    Args:
        tensors: a state dict.
        model: whose it should be.
        where: what the message begins with.
        origin: how it was read, for the message.

    Raises:
        UserError: names, shapes or kinds of numbers that differ (the first few are listed).
    """
    due = model.state_dict()
    wrong = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in due.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    wrong[3:] = ["…"] * (len(wrong) > 3)
    missing, unexpected = due.keys() - tensors.keys(), tensors.keys() - due.keys()
    for names, word in ((missing, "missing"), (unexpected, "unexpected")):
        if names:
            first = ", ".join(shown(name, most=80) for name in sorted(names)[:3]) + ", …" * (len(names) > 3)
            wrong.append(f"{len(names)} {word} ({first})")
    if wrong:
        raise UserError(f"{where}: not weights of this {type(model).__name__}{origin}: {'; '.join(wrong)}")
    for name, tensor in tensors.items():
        if numbers_of(tensor) != numbers_of(due[name]):
            types = f"{type_of(tensor)} for {type_of(due[name])}"
            raise UserError(f"{where}: '{name}' holds {types}; save the weights as they are used")


def check_finite(tensors: Mapping[str, Tensor], *, model: nn.Module, where: str) -> None:
    """Refuse weights with NaN or Inf, or without values.

    A buffer may hold Inf, as limits do that nothing is clipped at, but for a batch norm's statistics.

    Args:
        tensors: a state dict.
        model: whose it is.
        where: what the message begins with.

    Raises:
        UserError: names the first tensor that has any.
    """
    limits = {
        f"{name}.{buffer}".lstrip(".")
        for name, module in model.named_modules()
        if not isinstance(module, _BatchNorm)
        for buffer, _ in module.named_buffers(recurse=False)
    }
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise UserError(
                f"{where}: '{name}' is no tensor (get_extra_state), which no file without pickle holds; "
                "give a model without it"
            )
        if is_lazy(tensor):
            raise UserError(f"{where}: '{name}' has no shape yet (lazy); call the model on one batch first")
        if tensor.is_meta:
            raise UserError(f"{where}: '{name}' is on the meta device and has no values; load weights first")
        if not tensor.is_floating_point():
            continue
        wrong = tensor.isnan() if name in limits else ~tensor.isfinite()
        if bool(wrong.any()):
            raise UserError(f"{where}: NaN or Inf in '{name}'; the training diverged or the file is bad")


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Load a state dict that :func:`check_weights` has taken, in place.

    Raises:
        UserError: NaN or Inf.
    """
    check_finite(tensors, model=model, where=where)
    put_state(model, tensors)
