"""The mean of what was removed stays as a bias (FLAP, An et al., AAAI 2024, arXiv 2312.11983).

Of every layer that lost inputs, ``b' = b + W_R E[x_R]``: R its removed inputs, the mean over calibration
samples and places as the unpruned network has it. A layer without a bias is given one. No weight changes, no
label is read and nothing is trained. Where a convolution pads, the mean is right but at the border.

Shapes: ``I`` inputs of a layer, ``O`` outputs, ``K`` those kept, ``R`` removed inputs.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from coprune.data import Source
from coprune.errors import UserError, setting
from coprune.groups import ChannelGroup
from coprune.layers import bias_of, filters, is_convolution, is_recurrent, set_filters
from coprune.recovery.base import Pair, Recovered
from coprune.recovery.channel_map import removed_inputs
from coprune.statistics import Calibration, InputMoments, collect


@torch.no_grad()
def recover(pair: Pair, source: Source, *, seed: int = 0) -> Recovered:
    """Add the mean of what each layer no longer reads to its bias, in place.

    Args:
        pair: the model right after surgery, with the decisions that cut it, and the unpruned one.
        source: calibration samples; labels are not read.
        seed: nothing is drawn.

    Raises:
        UserError: it is not known what was cut.
    """
    if pair.kept and not pair.decisions:
        raise UserError(f"{setting('recovery', 'bias')} must be told what was cut; give the plan that cut it")
    model, teacher = pair.ready()
    gone = removed_inputs(pair.decisions)
    wanted = InputMoments()
    groups = tuple(
        ChannelGroup(d.name, d.size, d.members, "inner") for d in pair.decisions if len(d.kept) < d.size
    )
    calibration = Calibration(
        teacher, groups, source, classes=None, device=pair.device, label="bias", task=pair.task
    )
    means = collect(calibration, [wanted])[wanted.key] if groups else {}
    for name, parts in gone.items():
        channels = torch.cat([channels for _, _, channels in parts])
        layer = teacher.get_submodule(name)
        weight = filters(layer).double()[:, channels.to(pair.device)]  # [O, R, …]
        shift = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
        if is_convolution(layer) and layer.transposed:
            shift = shift / math.prod(layer.stride)  # on average over its places
        shift = shift @ means[f"{name}/mean"][channels].to(shift.device)
        kept = pair.kept.get(name)
        add_bias(model.get_submodule(name), shift if kept is None else shift[kept.to(shift.device)])
    return Recovered(True, changed=bool(gone))


def add_bias(layer: nn.Module, shift: torch.Tensor) -> None:
    """Add ``[O]`` to what a dense layer puts out, or to the gates of a recurrent one.

    A dense layer is given a bias where it has none; a recurrent one without is left as it is.
    """
    if is_recurrent(layer):
        bias = bias_of(layer)
        if bias is not None:
            set_filters(layer, filters(layer), bias + shift.to(bias))
    elif isinstance(layer.bias, torch.Tensor):
        layer.bias.add_(shift.to(layer.bias))
    else:
        weight = layer.get_parameter("weight")
        layer.bias = nn.Parameter(shift.to(weight), requires_grad=weight.requires_grad)
