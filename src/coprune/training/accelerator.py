"""Accelerate's part of a training: where the model goes, in which precision and layout, and back again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from coprune.errors import UserError, setting
from coprune.training.recipe import Recipe


def precision_of(recipe: Recipe, device: str) -> str:
    """What ``auto`` stands for on a device.

    Raises:
        UserError: fp16 on a CPU.
    """
    if recipe.precision == "auto":
        on_gpu = device != "cpu" and torch.cuda.is_available()
        return ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if on_gpu else "fp32"
    if recipe.precision == "fp16" and device == "cpu":
        raise UserError(f"{setting('precision', 'fp16')} needs a GPU; use bf16 or fp32 on a CPU")
    return recipe.precision


@contextmanager
def accelerated(recipe: Recipe, device: str, *, idle: bool) -> Iterator[Accelerator]:
    """Accelerate for one training.

    Args:
        recipe: its precision.
        device: ``"cpu"`` or ``"cuda"``.
        idle: whether some parameters get no gradient, which the exchange of gradients must expect.

    Raises:
        UserError: fp16 on a CPU.
    """
    precision = precision_of(recipe, device)
    wanted = "no" if precision == "fp32" else precision
    # Accelerate keeps one device and one precision for the whole process, those of whoever came first.
    # This training has its own, and what the caller's program had is there again after it.
    before = [(state, dict(state._shared_state)) for state in (PartialState, AcceleratorState)]
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        exchange = DistributedDataParallelKwargs(find_unused_parameters=idle)
        yield Accelerator(mixed_precision=wanted, cpu=device == "cpu", kwargs_handlers=[exchange])
    finally:
        for state, values in before:
            state._shared_state.clear()
            state._shared_state.update(values)


def layout_of(model: nn.Module, device: str) -> torch.memory_format:
    """channels_last for image networks: about 1.4 times faster to train on a CPU, more on a GPU.

    On a CPU only where all layers behind the first have a multiple of sixteen channels: with fewer than
    a block (8 on AVX2, 16 on AVX-512) the backward pass of oneDNN (torch 2.14) writes beyond its buffers.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    whole = all(m.out_channels % 16 == 0 for m in layers) and all(m.in_channels % 16 == 0 for m in layers[1:])
    flat = all(p.ndim < 5 for p in model.parameters())
    fit_for_it = bool(layers) and flat and (device != "cpu" or whole)
    return torch.channels_last if fit_for_it else torch.contiguous_format


def put_back(accelerator: Accelerator, model: nn.Module, trained: nn.Module) -> None:
    """A model as anybody may use it, without what training put around it."""
    accelerator.unwrap_model(trained, keep_fp32_wrapper=False)
    model.to(memory_format=torch.contiguous_format)
    model.eval()
    accelerator.free_memory()
