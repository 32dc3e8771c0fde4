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
from coprune.forward import logits_of, moved, samples_in
from coprune.progress import track


@torch.no_grad()
def reestimate_batchnorm(
    model: nn.Module, source: Source, *, batch_size: int = 250, device: str = "cpu"
) -> int:
    """Reset and re-measure the running statistics of all batch norms, in place.

    Statistics are the cumulative average over the batches (``momentum=None``). Only batch norms
    are put in training mode; dropout stays off.

    Args:
        model: left in evaluation mode.
        source: calibration samples.
        batch_size: samples a batch; each batch counts the same.
        device: where to compute.

    Returns:
        The number of batch norms that were re-estimated.
    """
    model.to(device).eval()
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        for inputs, _ in track(
            source.batches(batch_size), label="batch norm", total=source.steps(batch_size)
        ):
            # A batch of one sample has no variance over 1×1 maps.
            if samples_in(inputs) > 1:
                logits_of(model, moved(inputs, device))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    return len(layers)
