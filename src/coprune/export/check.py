"""Whether an exported model says what the model says, for several numbers of samples and tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from coprune.errors import UserError, first_line
from coprune.export.program import Run, outputs_of
from coprune.tracing.forward import Inputs, part_of, samples_in, trimmed

TOLERANCE = 1e-4
"""Largest difference of two values of an output, relative to its largest value where that is above 1."""

SIZES = (1, 2, 3, 8)


def samples_of_sizes(inputs: Inputs) -> list[Inputs]:
    """Batches of 1, 2, 3 and 8 samples; of tokens each as wide as its longest.

    Args:
        inputs: ``[N, …]``, taken round and round; tokens ``[N, T]`` with an ``attention_mask``.
    """
    found, start = [], 0
    for size in SIZES:
        found.append(trimmed(part_of(inputs, [(start + i) % samples_in(inputs) for i in range(size)])))
        start += size
    return found


@torch.no_grad()
def check_against(model: nn.Module, run: Run, batches: Sequence[Inputs], *, reader: str) -> float:
    """Compare an exported model with the one it was made of.

    Args:
        model: on the CPU, in evaluation mode.
        run: the exported one.
        batches: inputs of several sizes.
        reader: who runs it, for messages.

    Returns:
        The largest difference of two values, relative as :data:`TOLERANCE` is.

    Raises:
        UserError: a larger one than :data:`TOLERANCE`, another shape, or a size that cannot be run.
    """
    worst = 0.0
    for inputs in batches:
        size = samples_in(inputs)
        wanted = outputs_of(model, inputs)
        try:
            found = dict(zip(wanted, run(inputs), strict=True))
        except Exception as cause:  # whatever a foreign engine raises: the export is not usable
            why = first_line(cause)
            raise UserError(f"{reader} cannot run the exported model on {size} samples ({why})") from cause
        for name, due in wanted.items():
            of, gives = f" of {name}" * (len(wanted) > 1), found[name]
            if gives.shape != due.shape:
                raise UserError(
                    f"{reader} gives {list(gives.shape)}{of} for {size} samples where PyTorch gives "
                    f"{list(due.shape)}; nothing was written"
                )
            if not due.numel():
                continue
            apart = float((gives.double() - due.double()).abs().max() / due.double().abs().max().clamp_min(1))
            if not apart <= TOLERANCE:  # NaN too
                raise UserError(
                    f"{reader} and PyTorch differ by {apart:.1e}{of} on {size} samples; {TOLERANCE:g} is "
                    "allowed; nothing was written"
                )
            worst = max(worst, apart)
    return worst
