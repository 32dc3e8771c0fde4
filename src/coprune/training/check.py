"""What would stop a training is found before any work."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coprune.errors import UserError, is_out_of_memory, setting
from coprune.measure.evaluation import check_outputs
from coprune.models.copies import copied
from coprune.task import Task
from coprune.tracing.forward import Inputs, part_of, run
from coprune.training.accelerator import precision_of
from coprune.training.recipe import Recipe
from coprune.user_code import raised


def check_trains(
    model: nn.Module,
    task: Task,
    sample: tuple[Inputs, Any],
    recipe: Recipe,
    *,
    classes: int | None,
    device: str,
) -> None:
    """One pass in training mode, of a copy, on the CPU; nothing is drawn from torch's generator.

    Args:
        model: to be trained.
        task: whose loss trains.
        sample: inputs and targets of one sample.
        recipe: how.
        classes: of class numbers; the outputs must have that many at least.
        device: where.

    Raises:
        UserError: a precision that the device does not have, or a model that cannot be trained on this.
    """
    precision_of(recipe, device)
    inputs, targets = (part_of(part, [0, 0]) for part in sample)  # batch norm learns nothing from one
    if recipe.distill < 1 and not task.has_loss:
        raise UserError(
            f"the task '{task.name}' has no loss of its own; give {setting('loss')}, or learn from the "
            f"unpruned model alone with {setting('distill', 1)}"
        )
    if recipe.distill < 1 and targets is None:
        raise UserError(
            f"training needs targets, and this data has none; learn from the unpruned model alone with "
            f"{setting('distill', 1)}"
        )
    twin = copied(model).cpu().train()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            output = run(twin, inputs)
            outputs = task.read(output, inputs)
            if recipe.distill < 1 and not task.classifies:
                task.loss_of(output, inputs, targets)
    except UserError:
        raise
    except Exception as cause:  # a model may be a user's own code
        if is_out_of_memory(cause):
            raise UserError("memory ran out with two samples; free some") from cause
        raise UserError(
            f"in training mode the model does not take what it takes otherwise: {raised(cause)}"
        ) from cause
    if task.classifies and classes is not None:
        check_outputs(outputs.tensors[0], torch.tensor([classes - 1] * 2))
