"""What a layer of PyTorch does with its channels: the one place that knows layer types.

Shapes: ``C`` channels of a layer's input or output.
"""

from __future__ import annotations

from typing import Literal, TypeGuard

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

Side = Literal["input", "output"]

_COUNTS = {
    "input": ("in_channels", "in_features", "nx", "num_features", "num_channels", "embedding_dim"),
    "output": ("out_channels", "out_features", "nf", "num_features", "num_channels", "embedding_dim"),
}
"""What the attribute with ``C`` is called; ``nf``, ``nx``: GPT-2's layers."""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
"""Over signals, images and volumes. Transposed ones are none of them."""

CHANNELWISE = (_BatchNorm, _InstanceNorm, nn.PReLU)
"""Layers that treat every channel by itself."""

_IN_GROUPS = ("EvoNorm2dS0", "EvoNorm2dS0a", "EvoNorm2dS1", "EvoNorm2dS1a", "EvoNorm2dS2", "EvoNorm2dS2a")
"""Norms over groups of channels that are no ``nn.GroupNorm`` (Liu et al. 2020, arXiv 2004.02967)."""

_OVER_CHANNELS = ("GlobalResponseNorm",)
"""Norms over channels with one weight a channel that do not say so (ConvNeXt V2's)."""


def channel_count(module: nn.Module, side: Side, parameter: str | None = None) -> int | None:
    """How many channels a layer reads or makes; None where it has no number of its own.

    Args:
        module: the layer.
        side: input or output.
        parameter: of a bare parameter of the module instead.
    """
    if parameter is not None:
        owned = getattr(module, parameter, None)
        return owned.numel() if isinstance(owned, nn.Parameter) else None
    if isinstance(module, nn.PReLU):
        return module.num_parameters if module.num_parameters > 1 else None
    if is_frozen_norm(module):
        return module.get_buffer("running_mean").numel()
    if is_channel_norm(module):
        shape = getattr(module, "normalized_shape", ()) or tuple(module.get_parameter("weight").shape)
        return shape[-1] if len(shape) == 1 else None
    if type(module).__name__ in _IN_GROUPS:
        return module.get_parameter("weight").numel()
    return next((getattr(module, a) for a in _COUNTS[side] if hasattr(module, a)), None)


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer is GPT-2's ``Conv1D`` of 🤗 transformers: linear, with a weight ``[input, output]``."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def is_linear(module: nn.Module) -> bool:
    """Whether a layer's channels lie on the last axis of what it reads and makes."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def filters(module: nn.Module) -> Tensor:
    """The weight of a dense layer by its outputs, ``[O, …]``; a view, so that writing changes the layer."""
    weight = module.get_parameter("weight")
    return weight.T if is_transposed(module) else weight


def is_convolution(module: nn.Module) -> TypeGuard[Convolution]:
    """Whether a layer is a convolution, its channels behind the samples, over any number of axes."""
    return isinstance(module, Convolution)


def is_grouped(module: nn.Module) -> TypeGuard[Convolution]:
    """Whether a convolution works on blocks of channels; depthwise ones do."""
    return is_convolution(module) and module.groups > 1


def is_channel_norm(module: nn.Module) -> bool:
    """Whether a layer normalises over all of its channels: layer norm, RMS norm, global response norm.

    ``normalized_shape`` is what PyTorch's norms, and those of libraries that look like them, call it.
    """
    named = type(module).__name__ in _OVER_CHANNELS
    return named or isinstance(getattr(module, "normalized_shape", None), tuple | list)


def grouping(module: nn.Module) -> str | None:
    """The attribute of a norm over groups of channels that says how many there are; None of other layers."""
    if isinstance(module, nn.GroupNorm):
        return "num_groups"
    return "groups" if type(module).__name__ in _IN_GROUPS else None


def is_mixing(module: nn.Module) -> bool:
    """Whether a layer is a norm over several channels."""
    return is_channel_norm(module) or grouping(module) is not None


def is_frozen_norm(module: nn.Module) -> bool:
    """Whether a layer is a batch norm that is none of PyTorch's, such as ``FrozenBatchNorm2d``.

    All that it has of its own are vectors with an entry a channel, statistics among them.
    """
    if isinstance(module, CHANNELWISE):
        return False
    own = {name: t for name, t in (*module._parameters.items(), *module._buffers.items()) if t is not None}
    vectors = [t for t in own.values() if t.ndim]
    return {"running_mean", "running_var"} <= own.keys() and len({t.shape for t in vectors}) == 1 == vectors[
        0
    ].ndim


def is_channelwise(module: nn.Module) -> bool:
    """Whether a layer treats every channel by itself."""
    return isinstance(module, CHANNELWISE) or is_frozen_norm(module)


def has_channels(module: nn.Module) -> bool:
    """Whether a cut changes the layer: it has weights, or remembers how many channels there are."""
    weighty = any(True for _ in module.parameters(recurse=False))
    return weighty or is_channelwise(module) or is_mixing(module)


def tied_layers(model: nn.Module) -> dict[str, str]:
    """Layer → another that has one of its weights too."""
    found: dict[str, str] = {}
    holders: dict[int, str] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is None:
                continue
            other = holders.setdefault(id(parameter), name)
            if other != name:
                found.setdefault(name, other)
                found.setdefault(other, name)
    return found


def is_dense(module: nn.Module) -> bool:
    """Whether every output channel of a layer reads every input channel, and units may begin or end there."""
    return isinstance(module, nn.Linear) or (is_convolution(module) and module.groups == 1)
