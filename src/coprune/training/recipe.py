"""How to train: one value that says everything a training depends on, its data and seed apart."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from coprune.bounds import Batch, BelowOne, Epochs, NotNegative, Positive, Samples, Share, Weight


class Recipe(BaseModel):
    """SGD with momentum, as the pruning papers train small-image networks, unless told otherwise.

    Attributes:
        epochs: passes over (a fraction of) the training samples.
        batch_size: samples of a step, over all processes.
        optimizer: ``sgd`` with Nesterov momentum, or ``adamw`` (Loshchilov & Hutter 2019, arXiv
            1711.05101), which transformers are trained with.
        lr: highest learning rate.
        schedule: ``cosine`` or ``linear`` to 0, ``onecycle`` (Smith & Topin 2017, arXiv 1708.07120),
            ``step`` (times ``step_factor`` every ``step_epochs``) or ``constant``.
        warmup: share of all steps in which the learning rate first rises from 0, linearly; of
            ``onecycle`` the share of its rising part, 0 for the usual 0.3.
        clip: largest norm of the gradient of all weights together; None leaves gradients as they are.
        unit_clip: largest norm of the gradient of one output unit's weights, as a share of the norm of
            these weights (Brock et al. 2021, arXiv 2102.06171, §4.1); 0 leaves gradients as they are.
        momentum: of ``sgd``.
        weight_decay: of ``sgd`` on all weights, of ``adamw`` on all but biases and norms.
        fraction: share of the training samples used, drawn anew each epoch.
        images: train on so many samples only, the classes in their proportion, the same ones in every epoch.
        precision: ``auto`` is mixed precision on a GPU and float32 on a CPU.
        distill: weight of the teacher's soft labels in the loss, 0 (none) … 1 (only).
        temperature: of the soft labels (Hinton et al. 2015, arXiv 1503.02531).
        match: weight of the error of hidden outputs against the teacher's
            (:func:`coprune.training.distill.matching_loss`), added to the loss; 0 for none.
        patience_s: seconds between two checkpoints inside an epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Epochs
    batch_size: Batch = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.05
    schedule: Literal["cosine", "linear", "onecycle", "step", "constant"] = "cosine"
    warmup: BelowOne = 0.0
    clip: Positive | None = None
    unit_clip: NotNegative = 0.0
    step_epochs: Samples = 1
    step_factor: Positive = 0.5
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = 5e-4
    fraction: Share = 1.0
    images: Samples | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    distill: Weight = 0.0
    temperature: Positive = 2.0
    match: NotNegative = 0.0
    patience_s: NotNegative = 60.0

    @property
    def taught(self) -> bool:
        """Whether an unpruned model is learned from."""
        return self.distill > 0 or self.match > 0


def optimizer_for(recipe: Recipe, model: nn.Module) -> Optimizer:
    """The optimizer of a recipe over all weights of a model."""
    if recipe.optimizer == "sgd":
        return SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
        )
    # Biases and the scales of any kind of norm are vectors; decay would pull them from where they belong.
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=recipe.lr)


def scheduler(recipe: Recipe, optimizer: Optimizer, *, steps_per_epoch: int) -> LRScheduler:
    """The learning-rate schedule of a recipe, to be stepped once a batch.

    Args:
        recipe: what was asked for.
        optimizer: its groups' ``lr`` is the recipe's.
        steps_per_epoch: batches of an epoch.
    """
    total = max(1, recipe.epochs * steps_per_epoch)
    warm = round(recipe.warmup * total)
    if recipe.schedule == "linear" or (warm and recipe.schedule != "onecycle"):
        return LambdaLR(
            optimizer, lambda step: _factor(recipe, step, warm=warm, total=total, epoch=steps_per_epoch)
        )
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total)
    if recipe.schedule == "onecycle":
        # One step more than is trained: PyTorch's cycle refuses a step beyond its last. Nor may its first
        # phase be of one step, which is length 0 to it.
        start = recipe.warmup or 0.3
        start += 1e-6 * (abs(start * (total + 1) - 1) < 1e-9)
        return OneCycleLR(
            optimizer,
            max_lr=recipe.lr,
            total_steps=total + 1,
            pct_start=start,
            cycle_momentum=False,
        )
    if recipe.schedule == "step":
        return StepLR(optimizer, step_size=recipe.step_epochs * steps_per_epoch, gamma=recipe.step_factor)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def _factor(recipe: Recipe, step: int, *, warm: int, total: int, epoch: int) -> float:
    """Share of the highest learning rate in a step.

    Linear and cosine are those of 🤗 transformers (``get_linear_schedule_with_warmup``), so that published
    recipes can be followed; their very first step has a rate of 0.

    Args:
        recipe: says which schedule follows the warm-up.
        step: counted from 0.
        warm: steps of the warm-up.
        total: all steps.
        epoch: steps of an epoch.
    """
    if step < warm:
        return step / warm
    done = min(1.0, (step - warm) / max(1, total - warm))
    if recipe.schedule == "linear":
        return 1.0 - done
    if recipe.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if recipe.schedule == "step":
        return recipe.step_factor ** (step // (recipe.step_epochs * epoch))
    return 1.0
