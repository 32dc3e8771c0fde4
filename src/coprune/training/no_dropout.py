"""Training without the noise of dropout, whoever asks for it: modules, functions and attention kernels.

Evaluation mode would be simpler, and wrong: there some modules keep what they computed from weights that
training is about to change (the attention biases of timm's LeViT and TinyViT).
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch.nn.functional as F
from torch import nn

from coprune.tracing.calls import Function, Intercepted, name_of

_DROPOUT = re.compile(r"(feature_)?(alpha_)?dropout([123]d)?_?")
"""Names of functions that drop values and do nothing else."""

_SHARE = 4
"""Place of ``dropout_p`` among the arguments of scaled dot-product attention, which has no signature."""


def _undropped(function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if _DROPOUT.fullmatch(name_of(function)):
        return args[0] if args else named["input"]
    if function is F.scaled_dot_product_attention:
        if len(args) > _SHARE:
            args = (*args[:_SHARE], 0.0, *args[_SHARE + 1 :])
        else:
            named = {**named, "dropout_p": 0.0}
    elif function is F.multi_head_attention_forward:
        bound = inspect.signature(function).bind(*args, **named)
        bound.arguments["dropout_p"] = 0.0
        args, named = bound.args, bound.kwargs
    return function(*args, **named)


def functions_without_dropout() -> Intercepted:
    """A context in which functions with dropout do all but that."""
    return Intercepted(_undropped)


def modules_without_dropout(model: nn.Module) -> None:
    """Evaluation mode for the modules that are named after what they drop: values, paths, patches, residuals.

    Modules inside them stay in training mode.

    Args:
        model: in training mode.
    """
    for module in model.modules():
        name = type(module).__name__
        if "Drop" in name or name == "StochasticDepth":
            module.training = False
