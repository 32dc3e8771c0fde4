"""Training without the noise of dropout, whoever asks for it: modules, functions and attention kernels.

Evaluation mode would be simpler, and wrong: there some modules keep what they computed from weights that
training is about to change (the attention biases of timm's LeViT and TinyViT).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

_DROPOUTS: tuple[Callable[..., Any], ...] = (
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    torch.dropout,
    torch.dropout_,
    torch.feature_dropout,
    torch.feature_dropout_,
    torch.alpha_dropout,
    torch.alpha_dropout_,
)

_SHARE = 4
"""Place of ``dropout_p`` among the arguments of scaled dot-product attention, which has no signature."""


class Quiet(TorchFunctionMode):
    """Within the context, functions with dropout do all but that."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See :class:`torch.overrides.TorchFunctionMode`."""
        named = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else named["input"]
        if func is F.scaled_dot_product_attention:
            if len(args) > _SHARE:
                args = (*args[:_SHARE], 0.0, *args[_SHARE + 1 :])
            else:
                named["dropout_p"] = 0.0
        elif func is F.multi_head_attention_forward:
            bound = inspect.signature(func).bind(*args, **named)
            bound.arguments["dropout_p"] = 0.0
            args, named = bound.args, bound.kwargs
        return func(*args, **named)


def silence(model: nn.Module) -> None:
    """Evaluation mode for the modules that are named after what they drop: values, paths, patches, residuals.

    Modules inside them stay in training mode.

    Args:
        model: in training mode.
    """
    for module in model.modules():
        name = type(module).__name__
        if "Drop" in name or name == "StochasticDepth":
            module.training = False
