"""Batch-norm re-estimation: new running statistics for a network whose channels have changed.

After surgery the inputs of every later batch norm have another mean and variance than the ones it
remembers. Forward passes over calibration samples measure them anew, without labels and without
training (Li et al. 2020, "EagleEye", arXiv 2007.02491; fvcore's ``precise_bn``).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from coprune.data import Source
from coprune.data.sharding import own_batches, own_steps
from coprune.distributed.collectives import summed
from coprune.distributed.world import world
from coprune.progress import track
from coprune.recovery.base import Pair, Recovered
from coprune.tracing.forward import moved, run, samples_in


def recover(pair: Pair, source: Source, *, seed: int = 0) -> Recovered:
    """See :func:`reestimate_batchnorm`."""
    return Recovered(True, reestimate_batchnorm(pair.model, source, device=pair.device) > 0)


@torch.no_grad()
def reestimate_batchnorm(
    model: nn.Module, source: Source, *, batch_size: int = 250, device: str = "cpu"
) -> int:
    """Reset and re-measure the running statistics of all batch norms, in place.

    Statistics are the cumulative average over the batches (``momentum=None``). Only batch norms
    are put in training mode; dropout stays off. Processes of a run share out the batches, and the average
    over all of them is taken.

    Args:
        model: left in evaluation mode.
        source: calibration samples.
        batch_size: samples a batch; each batch counts the same.
        device: where to compute.

    Returns:
        The number of batch norms that were re-estimated; one that no batch of two samples reached keeps
        what it knew.
    """
    model.to(device).eval()
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    known = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    seen = 0
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        steps = own_steps(source, batch_size)
        for batch in track(own_batches(source, batch_size), label="batch norm", total=steps):
            # A batch of one sample has no variance over 1×1 maps.
            if samples_in(batch.inputs) > 1:
                run(model, moved(batch.inputs, device))
        for layer in layers if world() > 1 else ():
            _average(layer)
    finally:
        for layer, momentum, before in zip(layers, momenta, known, strict=True):
            layer.momentum = momentum
            layer.eval()
            if int(layer.get_buffer("num_batches_tracked")):
                seen += 1
            else:
                layer.load_state_dict(before, strict=False)
    return seen


def _average(layer: _BatchNorm) -> None:
    """Give a batch norm the average over the batches of all processes, which all have cumulative ones."""
    counted = layer.get_buffer("num_batches_tracked")
    batches = summed(counted)
    if not int(batches):
        return
    for name in ("running_mean", "running_var"):
        mine = layer.get_buffer(name)
        mine.copy_(summed(mine.double() * counted) / batches)
    counted.copy_(batches)
