"""What a layer of PyTorch does with its channels: the one place that knows layer types.

A new kind of norm is an entry of :data:`NORMS`; masks, cuts, groups and stored sizes follow from it.

Shapes: ``C`` channels of a layer's input or output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

Side = Literal["input", "output"]

_COUNTS = {
    "input": ("in_channels", "in_features", "nx", "embedding_dim"),
    "output": ("out_channels", "out_features", "nf", "embedding_dim"),
}
"""What dense layers call ``C``; ``nf``, ``nx``: GPT-2's layers."""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
"""Over signals, images and volumes. Transposed ones are none of them."""


@dataclass(frozen=True)
class Norm:
    """A kind of layer between dense ones that has an entry a channel: norms, and PReLU.

    Attributes:
        matches: whether a layer is of this kind.
        over: the channels that are computed with at once: each by itself, ``groups`` of them, or ``all``.
        count: the attribute that says how many channels there are, a number or a tuple of one; where a layer
            has no such attribute, its vectors say it.
        groups: the attribute that says how many groups there are.
        vectors: parameters and buffers with an entry a channel, as far as a layer has them.
        shared: whether one entry may serve all channels.
    """

    matches: Callable[[nn.Module], bool]
    over: Literal["one", "groups", "all"]
    count: str = "num_features"
    groups: str = ""
    vectors: tuple[str, ...] = ("weight", "bias", "running_mean", "running_var")
    shared: bool = False

    def channels(self, layer: nn.Module) -> int | None:
        """How many channels a layer of this kind has; None where it normalises over more than channels."""
        tensors = (getattr(layer, vector, None) for vector in self.vectors)
        size: Any = getattr(layer, self.count, None) or next((t.shape for t in tensors if t is not None), ())
        shape = (size,) if isinstance(size, int) else tuple(size)
        return None if len(shape) != 1 or (self.shared and shape == (1,)) else int(shape[0])


def _is(*classes: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, classes)


def _is_called(*names: str) -> Callable[[nn.Module], bool]:
    return lambda module: type(module).__name__ in names


def _has_a_shape(module: nn.Module) -> bool:
    """``normalized_shape`` is what PyTorch's norms, and those of libraries that look like them, call it."""
    return isinstance(getattr(module, "normalized_shape", None), tuple | list)


def _is_frozen(module: nn.Module) -> bool:
    """Whether all that a layer has of its own are vectors with an entry a channel, statistics among them."""
    own = {**module._parameters, **module._buffers}
    shapes = {tuple(t.shape) for t in own.values() if t is not None and t.ndim}
    statistics = own.get("running_mean") is not None and own.get("running_var") is not None
    return statistics and [len(shape) for shape in shapes] == [1]


NORMS: list[Norm] = [
    Norm(_is(_BatchNorm, _InstanceNorm), "one"),
    Norm(_is(nn.PReLU), "one", count="num_parameters", vectors=("weight",), shared=True),
    Norm(_is_frozen, "one"),  # none of PyTorch's, such as FrozenBatchNorm2d
    Norm(_is(nn.GroupNorm), "groups", count="num_channels", groups="num_groups"),
    # Liu et al. 2020, arXiv 2004.02967.
    Norm(
        _is_called(*(f"EvoNorm2dS{kind}" for kind in ("0", "0a", "1", "1a", "2", "2a"))),
        "groups",
        groups="groups",
        vectors=("weight", "bias", "v", "running_var"),
    ),
    # Layer norm, RMS norm; and ConvNeXt V2's global response norm, which does not say so.
    Norm(_has_a_shape, "all", count="normalized_shape"),
    Norm(_is_called("GlobalResponseNorm"), "all"),
]
"""Append an entry for a norm of your own; the first that matches counts."""


def size_attributes() -> tuple[str, ...]:
    """The attributes of layers that say how large they are; everything else is the factory's business."""
    dense = (*_COUNTS["input"], *_COUNTS["output"], "groups")
    norms = (name for norm in NORMS for name in (norm.count, norm.groups) if name)
    return tuple(dict.fromkeys((*dense, *norms)))


def norm_of(module: nn.Module) -> Norm | None:
    """The table's entry for a layer, or None."""
    return next((norm for norm in NORMS if norm.matches(module)), None)


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
    norm = norm_of(module)
    if norm is not None:
        return norm.channels(module)
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


def is_channelwise(module: nn.Module) -> bool:
    """Whether a layer treats every channel by itself."""
    norm = norm_of(module)
    return norm is not None and norm.over == "one"


def is_mixing(module: nn.Module) -> bool:
    """Whether a layer is a norm over several channels."""
    norm = norm_of(module)
    return norm is not None and norm.over != "one"


def is_channel_norm(module: nn.Module) -> bool:
    """Whether a layer normalises over all of its channels: layer norm, RMS norm, global response norm."""
    norm = norm_of(module)
    return norm is not None and norm.over == "all"


def grouping(module: nn.Module) -> str | None:
    """The attribute of a norm over groups of channels that says how many there are; None of other layers."""
    norm = norm_of(module)
    return norm.groups or None if norm else None


def has_channels(module: nn.Module) -> bool:
    """Whether a cut changes the layer: it has weights, or remembers how many channels there are."""
    return norm_of(module) is not None or any(True for _ in module.parameters(recurse=False))


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
