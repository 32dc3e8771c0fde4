"""What would stop a training is found before any work."""

from __future__ import annotations

import torch
from torch import nn

from coprune.errors import UserError, is_out_of_memory
from coprune.measure.accuracy import check_outputs
from coprune.models.copies import copied
from coprune.tracing.forward import Inputs, logits_of, part_of
from coprune.training.accelerator import precision_of
from coprune.training.recipe import Recipe
from coprune.user_code import raised


def check_trains(model: nn.Module, example: Inputs, recipe: Recipe, *, classes: int, device: str) -> None:
    """One pass in training mode, of a copy, on the CPU; nothing is drawn from torch's generator.

    Args:
        model: to be trained.
        example: one sample or more, ``[N, …]``.
        recipe: how.
        classes: of the labels; the outputs must have that many at least.
        device: where.

    Raises:
        UserError: a precision that the device does not have, or a model that cannot be trained on this.
    """
    precision_of(recipe, device)
    twice = part_of(example, [0, 0])  # batch norm learns nothing from one
    twin = copied(model).cpu().train()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            logits = logits_of(twin, twice)
    except UserError:
        raise
    except Exception as cause:  # a model may be a user's own code
        if is_out_of_memory(cause):
            raise UserError("memory ran out with two samples; free some") from cause
        raise UserError(
            f"in training mode the model does not take what it takes otherwise: {raised(cause)}"
        ) from cause
    check_outputs(logits, torch.tensor([classes - 1] * 2))
