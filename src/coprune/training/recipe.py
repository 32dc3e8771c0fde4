"""How to train: one value that says everything a training depends on, its data and seed apart."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)


class Recipe(BaseModel):
    """SGD with momentum, as the pruning papers train small-image networks.

    Attributes:
        epochs: passes over (a fraction of) the training samples.
        batch_size: samples of a step, over all processes.
        lr: highest learning rate.
        schedule: ``cosine`` to 0, ``onecycle`` (Smith & Topin 2017, arXiv 1708.07120), ``step``
            (times ``step_factor`` every ``step_epochs``) or ``constant``.
        fraction: share of the training samples used, drawn anew each epoch.
        images: train on so many samples only, a balanced draw that stays the same in every epoch.
        precision: ``auto`` is mixed precision on a GPU and float32 on a CPU.
        distill: weight of the teacher's soft labels in the loss, 0 (none) … 1 (only).
        temperature: of the soft labels (Hinton et al. 2015, arXiv 1503.02531).
        patience_s: seconds between two checkpoints inside an epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(ge=0)
    batch_size: int = Field(128, ge=1)
    lr: float = Field(0.05, gt=0)
    schedule: Literal["cosine", "onecycle", "step", "constant"] = "cosine"
    step_epochs: int = Field(1, ge=1)
    step_factor: float = Field(0.5, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    fraction: float = Field(1.0, gt=0, le=1)
    images: int | None = Field(None, ge=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    distill: float = Field(0.0, ge=0, le=1)
    temperature: float = Field(2.0, gt=0)
    patience_s: float = Field(60.0, ge=0)


def scheduler(recipe: Recipe, optimizer: Optimizer, *, steps_per_epoch: int) -> LRScheduler:
    """The learning-rate schedule of a recipe, to be stepped once a batch.

    Args:
        recipe: what was asked for.
        optimizer: its groups' ``lr`` is the recipe's.
        steps_per_epoch: batches of an epoch.
    """
    total = max(1, recipe.epochs * steps_per_epoch)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total)
    if recipe.schedule == "onecycle":
        # One step more than is trained: PyTorch's cycle refuses a step beyond its last.
        return OneCycleLR(
            optimizer, max_lr=recipe.lr, total_steps=total + 1, pct_start=0.3, cycle_momentum=False
        )
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=recipe.step_epochs * steps_per_epoch, gamma=recipe.step_factor)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)
