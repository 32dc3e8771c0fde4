"""Rows of a regression: what a dense layer reads at one output position, and where to look.

Shapes: ``N`` samples, ``P`` positions a sample, ``D`` values read at a position (``U·kh·kw`` of a
convolution of images, channel-major like its weight; the features of a linear layer), ``O`` output channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.layers import Convolution, is_convolution
from coprune.seeding import generator
from coprune.tracing.calls import convolution_of

_CHUNK = 8192

_BLOCK = 256


def output_positions(layer: nn.Module, output: Tensor, *, samples: int) -> int:
    """Places of one sample at which the layer is applied: pixels, tokens (of all its windows), or 1."""
    channels = output.shape[1] if is_convolution(layer) else output.shape[-1]
    return output.numel() // (samples * channels)


def draw_positions(name: str, *, samples: int, places: int, wanted: int, seed: int) -> Tensor:
    """Where to look: ``[N, P]`` int64 below ``places``, different places for every sample.

    A function of the layer's name and the seed, so that two networks are compared in the same places.
    """
    if wanted >= places:
        return torch.arange(places).expand(samples, places)
    return torch.rand(samples, places, generator=generator(seed, name)).topk(wanted, dim=1).indices


def draw_valid(name: str, valid: Tensor, *, wanted: int, seed: int) -> Tensor:
    """Where to look when not every place counts: ``[N, P]`` int64.

    Every sample gets as many places, so that all weigh the same; one with fewer valid places than the
    others repeats its own.

    Args:
        name: of the layer.
        valid: places that count, ``[N, places]`` bool. A sample without any gets its first place.
        wanted: places a sample, at most.
        seed: of the draw.
    """
    drawn = torch.rand(valid.shape, generator=generator(seed, name)).masked_fill(~valid.cpu(), -1.0)
    order = drawn.argsort(dim=1, descending=True)
    counts = valid.cpu().sum(1, keepdim=True).clamp_min(1)
    most = min(wanted, int(counts.max()))
    return order.gather(1, torch.arange(most).expand(len(valid), most) % counts)


def read_rows(layer: nn.Module, inputs: Tensor, positions: Tensor) -> Tensor:
    """What the layer reads at the given places.

    Args:
        layer: a convolution with ``groups=1`` or a linear layer.
        inputs: ``[N, U, H, W]`` (``[N, U, L]`` of signals, ``[N, U, T, H, W]`` of volumes), or ``[N, …, D]``
            of a linear layer; ``[N·R, …, D]`` where it is given ``R`` windows of every sample, one sample
            after the other.
        positions: ``[N, P]``.

    Returns:
        ``[N·P, D]`` in the dtype of the inputs.
    """
    if not is_convolution(layer):
        return _pick(inputs.reshape(len(positions), -1, inputs.shape[-1]), positions)
    patches = _spread(layer, inputs) if layer.transposed else _padded(layer, inputs)
    axes = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for axis, (kernel, stride, dilation) in enumerate(axes, start=2):
        step = 1 if layer.transposed else stride
        patches = patches.unfold(axis, dilation * (kernel - 1) + 1, step)[..., ::dilation]
    if layer.transposed:
        patches = patches.flip(tuple(range(inputs.ndim, patches.ndim)))
    behind = patches.ndim // 2  # axes: N, U, then as many of places as of a kernel
    patches = patches.movedim(1, behind)  # [N, H, W, U, kh, kw]
    at = torch.unravel_index(positions, patches.shape[1:behind])
    sample = torch.arange(len(inputs), device=inputs.device).unsqueeze(1)
    return patches[(sample, *at)].flatten(2).flatten(0, 1)


def centred_gram(rows: Tensor, mean: Tensor) -> Tensor:
    """``Σ (r − mean)(r − mean)ᵀ`` over rows ``[M, D]``, ``[D, D]`` float64.

    Products of 8,192 rows at a time in the rows' precision (float32 of halves), added up in float64.

    Args:
        rows: ``[M, D]``.
        mean: ``[D]``; 0 for products that are not centred.
    """
    width, dtype = rows.shape[1], torch.promote_types(rows.dtype, torch.float32)
    found = torch.zeros(width, width, dtype=torch.float64, device=rows.device)
    for chunk in rows.split(_CHUNK):
        found += _gram(chunk.to(dtype) - mean.to(dtype))
    return found


def _gram(rows: Tensor) -> Tensor:
    """``RᵀR``: half of its blocks are the other half mirrored."""
    width = rows.shape[1]
    found = rows.new_empty(width, width)
    for start in range(0, width, _BLOCK):
        here, later = slice(start, start + _BLOCK), slice(start + _BLOCK, width)
        found[here, here] = rows[:, here].T @ rows[:, here]
        found[here, later] = rows[:, here].T @ rows[:, later]
        found[later, here] = found[here, later].T
    return found


def _padded(layer: Convolution, inputs: Tensor) -> Tensor:
    """Inputs with all that the kernel passes over, ``[N, U, …]``, however the layer pads them."""
    product = convolution_of(layer, inputs)
    padded, padding = product["input"], product.get("padding", 0)
    axes = padded.ndim - 2
    if padding == "same":
        both = list(layer._reversed_padding_repeated_twice)
    else:
        each = (0,) * axes if padding == "valid" else padding
        each = (each,) * axes if isinstance(each, int) else tuple(each) * (axes // len(each))
        both = [p for pad in reversed(each) for p in (pad, pad)]
    return F.pad(padded, both).contiguous() if any(both) else padded.contiguous()


def _spread(layer: Convolution, inputs: Tensor) -> Tensor:
    """Inputs of a transposed convolution with zeros between and around them, ``[N, U, …]``.

    Over these a kernel passes that is turned round, by one place a step.
    """
    places = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], layer.stride, strict=True)]
    spread = inputs.new_zeros(*inputs.shape[:2], *places)
    spread[(slice(None), slice(None), *(slice(None, None, step) for step in layer.stride))] = inputs
    axes = zip(layer.kernel_size, layer.dilation, map(int, layer.padding), layer.output_padding, strict=True)
    reach = [(d * (k - 1) - p, more) for k, d, p, more in axes]
    return F.pad(spread, [pad for r, more in reversed(reach) for pad in (r, r + more)])


def fits(layer: nn.Module, read: Tensor, made: Tensor) -> bool:
    """Whether rows of a layer are at the places of its output: not where that is told its size."""
    if not (is_convolution(layer) and layer.transposed):
        return True
    spread = _spread(layer, read[:1]).shape[2:]
    ends = zip(spread, layer.kernel_size, layer.dilation, strict=True)
    return [n - d * (k - 1) for n, k, d in ends] == list(made.shape[2:])


def pick_outputs(output: Tensor, positions: Tensor, *, last: bool) -> Tensor:
    """Values of an activation at the given places: ``[N·P, O]``.

    Args:
        output: ``[N, O, …]``, or ``[N, …, O]`` (``[N·R, …, O]`` of ``R`` windows) when ``last``.
        positions: ``[N, P]``.
        last: whether channels lie on the last axis.
    """
    if last:
        return _pick(output.reshape(len(positions), -1, output.shape[-1]), positions)
    return _pick(output.flatten(2).transpose(1, 2), positions)


def pick_channels(values: Tensor, channels: Tensor, *, axis: int) -> Tensor:
    """Some channels of an activation, in the given order; a view where they lie side by side.

    Args:
        values: with channels on ``axis``.
        channels: ``[K]`` int64.
        axis: of the channels.
    """
    first = int(channels[0])
    if torch.equal(channels, torch.arange(first, first + len(channels))):
        return values.narrow(axis, first, len(channels))
    return values.index_select(axis, channels.to(values.device))


def _pick(cells: Tensor, positions: Tensor) -> Tensor:
    sample = torch.arange(len(cells), device=cells.device).unsqueeze(1)
    return cells[sample, positions].flatten(0, 1)
