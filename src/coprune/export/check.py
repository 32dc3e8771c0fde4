"""Whether an exported model says what the model says, for several numbers of samples and tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coprune.errors import UserError, first_line
from coprune.export.program import Run, outputs_of
from coprune.tracing.forward import Inputs, part_of, samples_in

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
        batch = part_of(inputs, [(start + i) % samples_in(inputs) for i in range(size)])
        if isinstance(batch, dict) and "attention_mask" in batch:
            width = int(batch["attention_mask"].sum(1).max())
            batch = {name: tensor[:, :width].contiguous() for name, tensor in batch.items()}
        found.append(batch)
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
            of = f" of {name}" * (len(wanted) > 1)
            if found[name].shape != due.shape:
                raise UserError(
                    f"{reader} gives {list(found[name].shape)}{of} for {size} samples where PyTorch gives "
                    f"{list(due.shape)}; nothing was written"
                )
            worst = max(worst, _difference(found[name], due, words=f"{of} on {size} samples", reader=reader))
    return worst


def _difference(found: Tensor, due: Tensor, *, words: str, reader: str) -> float:
    if not due.numel():
        return 0.0
    found, due = found.double(), due.double()
    difference = float((found - due).abs().max()) / max(1.0, float(due.abs().max()))
    if not difference <= TOLERANCE:  # NaN too
        raise UserError(
            f"{reader} and PyTorch differ by {difference:.1e}{words}; {TOLERANCE:g} is allowed; "
            "nothing was written"
        )
    return difference
