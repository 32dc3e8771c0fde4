"""How to train: one value that says everything a training depends on, its data and seed apart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coprune.bounds import Batch, BelowOne, Epochs, NotNegative, Positive, Samples, Share, Weight
from coprune.options import Options


class Recipe(Options, title="Training"):
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

    epochs: Epochs
    batch_size: Batch = Field(128, description="Samples a training step; 128 by default, 32 of transformers.")
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd, the default, or adamw, that of transformers."
    )
    lr: Positive = 0.05
    schedule: Literal["cosine", "linear", "onecycle", "step", "constant"] = "cosine"
    warmup: BelowOne = Field(
        0.0,
        description="Share of the steps in which the rate first rises; 0 by default, 0.1 of transformers.",
    )
    clip: Positive | None = Field(
        None, description="Largest norm of a step's gradient; none by default, 1 of transformers."
    )
    unit_clip: NotNegative = Field(
        0.0,
        description="Largest norm of a unit's gradient, as a share of its weights'; "
        "0.2 with --match and sgd, or 0.",
    )
    step_epochs: Samples = 1
    step_factor: Positive = 0.5
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = Field(
        5e-4, description="5e-4 by default; 0.01 of transformers, on all but biases and norms."
    )
    fraction: Share = 1.0
    images: Samples | None = Field(None, description="Train on so many samples only; all by default.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto (mixed on a GPU, the default), fp32, bf16 or fp16."
    )
    distill: Weight = Field(
        0.0, description="Weight of the unpruned model's soft labels in the loss, 0 to 1; 0.9 by default."
    )
    temperature: Positive = 2.0
    match: NotNegative = Field(
        0.0,
        description="Weight of the error of hidden outputs against the unpruned model's; 10 with --distill.",
    )
    patience_s: NotNegative = 60.0

    @property
    def distills(self) -> bool:
        """Whether an unpruned model is learned from."""
        return self.distill > 0 or self.match > 0
