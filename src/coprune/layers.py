"""What a layer of PyTorch does with its channels: the one place that knows layer types.

A new kind of norm is an entry of :data:`NORMS`; masks, cuts, groups and stored sizes follow from it.

Shapes: ``C`` channels of a layer's input or output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

Side = Literal["input", "output"]

_COUNTS = {
    "input": ("in_channels", "in_features", "nx", "embedding_dim"),
    "output": ("out_channels", "out_features", "nf", "embedding_dim"),
}
"""What dense layers call ``C``; ``nf``, ``nx``: GPT-2's layers."""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
"""Over signals, images and volumes, transposed ones among them."""


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
        parameter: of a bare parameter of the module, or of an attribute that counts channels, instead.
    """
    if parameter is not None:
        owned = attribute_of(module, parameter)
        return owned.numel() if isinstance(owned, nn.Parameter) else owned if isinstance(owned, int) else None
    norm = norm_of(module)
    if norm is not None:
        return norm.channels(module)
    if is_recurrent(module):
        return module.input_size if side == "input" else module.hidden_size
    return next((getattr(module, a) for a in _COUNTS[side] if hasattr(module, a)), None)


def attribute_of(module: nn.Module, name: str) -> Any:
    """The value of a module's attribute; of ``name.3`` the one in the list."""
    name, _, place = name.partition(".")
    value = getattr(module, name, None)
    return (
        value[int(place)] if place and isinstance(value, list | tuple) and int(place) < len(value) else value
    )


def is_gpt2_linear(module: nn.Module) -> bool:
    """Whether a layer is GPT-2's ``Conv1D`` of 🤗 transformers: linear, with a weight ``[input, output]``."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer's weight is ``[input, output, …]``."""
    return is_gpt2_linear(module) or (is_convolution(module) and module.transposed)


def is_linear(module: nn.Module) -> bool:
    """Whether a layer's channels lie on the last axis of what it reads and makes."""
    return isinstance(module, nn.Linear) or is_gpt2_linear(module) or is_recurrent(module)


def is_recurrent(module: nn.Module) -> TypeGuard[nn.RNNBase | nn.RNNCellBase]:
    """Whether a layer is an LSTM, a GRU or a plain recurrent one, or a cell of these."""
    return isinstance(module, nn.RNNBase | nn.RNNCellBase)


def filters(module: nn.Module) -> Tensor:
    """The weight of a dense layer by its outputs, ``[O, …]``; a view, so that writing changes the layer.

    Of a recurrent layer a copy of the weights that read its input, those of all gates and directions.
    """
    if is_recurrent(module):
        return torch.cat([weight for weight, _ in _reading(module)])
    weight = module.get_parameter("weight")
    return weight.transpose(0, 1) if is_transposed(module) else weight


READING = ("weight_ih", "weight_ih_l0", "weight_ih_l0_reverse")
"""Weights with which recurrent layers read their input; all others read hidden units."""


def _reading(layer: nn.Module) -> list[tuple[Tensor, Tensor | None]]:
    """The weights and biases with which a recurrent layer reads its input, a pair a direction."""
    own = [name for name in READING if name in layer._parameters]
    return [(layer.get_parameter(n), layer._parameters.get(n.replace("weight", "bias"))) for n in own]


def bias_of(layer: nn.Module) -> Tensor | None:
    """What a dense or recurrent layer adds to the products of :func:`filters`, ``[O]``, if anything."""
    if not is_recurrent(layer):
        return layer.bias if isinstance(layer.bias, Tensor) else None
    biases = [bias for _, bias in _reading(layer) if bias is not None]
    return torch.cat(biases) if biases else None


def set_filters(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    """Give a layer other weights, as :func:`filters` has them, and other biases, in place."""
    parts = _reading(layer) if is_recurrent(layer) else [(filters(layer), bias_of(layer))]
    at = 0
    for own, added in parts:
        here = slice(at, at := at + len(own))
        own.copy_(weight[here])
        if bias is not None and added is not None:
            added.copy_(bias[here])


def made_of(layer: nn.Module, read: Tensor, output: Any) -> Tensor:
    """What a layer's :func:`filters` make of what it reads: its output.

    Of a recurrent layer its gates before their activation, with the samples first.
    """
    if not is_recurrent(layer):
        return output
    return torch.nn.functional.linear(samples_first(layer, read), filters(layer), bias_of(layer))


def with_last_states(layer: nn.Module, made: Any) -> Any:
    """What a layer makes; the last states of a recurrent one taken out of those of all steps.

    The values are the same, but gradients of whoever reads the last ones alone pass all of them.
    """
    if not (isinstance(layer, nn.RNNBase) and isinstance(made, tuple) and isinstance(made[0], Tensor)):
        return made
    output, last = made
    steps = output.movedim(1, 0) if layer.batch_first and output.ndim == 3 else output
    ends = [steps[-1], steps[0]] if layer.bidirectional else [steps[-1]]
    width = steps.shape[-1] // len(ends)
    ends = [end[..., width * i : width * (i + 1)] for i, end in enumerate(ends)]
    hidden = last[0] if isinstance(last, tuple) else last
    hidden = torch.cat([hidden[: -len(ends)], torch.stack(ends)])
    return output, (hidden, *last[1:]) if isinstance(last, tuple) else hidden


def samples_first(layer: nn.Module, read: Tensor) -> Tensor:
    """What a layer reads, with the samples in front of the steps."""
    behind = isinstance(layer, nn.RNNBase) and not layer.batch_first and read.ndim == 3
    return read.transpose(0, 1) if behind else read


def channels_axis(layer: nn.Module, ndim: int, given: Tensor | None = None) -> int:
    """The axis of a known layer's input that its channels lie on, from the front.

    Args:
        layer: a dense layer, a norm or a recurrent layer.
        ndim: axes of its input.
        given: of a norm over channels its input, which tells where they are.
    """
    if is_convolution(layer):
        return ndim - len(layer.kernel_size) - 1
    if is_linear(layer):
        return ndim - 1
    norm = norm_of(layer)
    if norm is None or norm.over != "all" or given is None:
        return min(1, ndim - 1)
    return _normalised_axis(layer, given, norm.channels(layer) or 0) % ndim


@torch.no_grad()
def _normalised_axis(layer: nn.Module, x: Tensor, count: int) -> int:
    """The axis of a norm's channels: the last, or the second in norms for maps such as LayerNorm2d."""
    known = getattr(layer, "channel_dim", None)
    if known is not None:
        return int(known)
    if x.shape[-1] != count:
        return 1
    if x.ndim < 3 or x.shape[1] != count:
        return -1
    # Both would do by their sizes: a norm hands a change on along the axis that it runs over.
    one = x[:1].clone(memory_format=torch.contiguous_format)
    before = layer.forward(one)
    one.view(-1)[0] += 1.0 + one.abs().max()
    by_last = (layer.forward(one) != before).reshape(-1, count)[0]
    return -1 if bool(by_last[1:].any()) else 1


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
        for parameter in module.parameters(recurse=False):
            other = holders.setdefault(id(parameter), name)
            if other != name:
                found.setdefault(name, other)
                found.setdefault(other, name)
    return found


def is_dense(module: nn.Module) -> bool:
    """Whether every output channel of a layer reads every input channel, and units may begin or end there."""
    return isinstance(module, nn.Linear) or (is_convolution(module) and module.groups == 1)


def set_size(module: nn.Module, name: str, value: int) -> None:
    """Change an attribute that counts channels (``name.3``: in a list), and note that it is one."""
    own, _, place = name.partition(".")
    if place:
        values = list(getattr(module, own))
        values[int(place)] = value
        setattr(module, own, type(getattr(module, own))(values))
    else:
        setattr(module, own, value)
    vars(module)[COUNTED] = tuple(dict.fromkeys((*vars(module).get(COUNTED, ()), name)))


COUNTED = "_coprune_counted"
"""Of a pruned module: the names of its attributes that count channels and were changed."""
