"""Convolutions that standardise their weight before they use it, replaced by plain ones with that weight.

Weight standardisation (arXiv 1903.10520; scaled, arXiv 2101.08692) subtracts a filter's mean and divides by
its spread over *all* inputs. When inputs go, the other weights would change with them, and nobody could say
what an input contributes. The weight that comes out of it is an ordinary one: it is taken once, and the
network computes what it did, a little faster.

Shapes: ``O`` outputs, ``I`` inputs of a group, ``K`` kernel pixels a side.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from coprune.tracing.calls import convolution_of

STANDARDISED = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
"""What such layers are called in timm."""


class PlainConv2d(nn.Conv2d):
    """A convolution that may pad as TensorFlow's ``SAME`` does: by the image's size, the rest behind.

    Attributes:
        same: whether it does; ``padding`` is 0 then.
    """

    same: bool = False

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            from timm.layers.padding import pad_same

            x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        return super().forward(x)


def fold_standardised(model: nn.Module, *, only: Collection[str] | None = None) -> nn.Module:
    """Put :class:`PlainConv2d` with the standardised weight in the place of such layers.

    Args:
        model: changed in place.
        only: names of modules; None: all.

    Returns:
        The model.
    """
    for name, module in list(model.named_modules()):
        wanted = only is None or name in only
        if name and wanted and isinstance(module, nn.Conv2d) and type(module).__name__ in STANDARDISED:
            model.set_submodule(name, _folded(module))
    return model


@torch.no_grad()
def _folded(layer: nn.Conv2d) -> PlainConv2d:
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    made = PlainConv2d(*shape, layer.dilation, layer.groups, layer.bias is not None).to(layer.weight)  # type: ignore[arg-type]
    made.same = bool(getattr(layer, "same_pad", False))
    size = max(k * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    blank = layer.weight.new_zeros(1, layer.in_channels, size, size)
    weight = convolution_of(layer, blank)["weight"]
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=layer.weight.requires_grad)
    made.bias = layer.bias
    return made.train(layer.training)


def folded_in(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that :func:`fold_standardised` put there."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, PlainConv2d))
