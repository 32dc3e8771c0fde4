"""How to train: one value that says everything a training depends on, its data and seed apart."""

from __future__ import annotations

from typing import Literal

from coprune.bounds import Batch, BelowOne, Epochs, NotNegative, Positive, Samples, Share, Weight
from coprune.options import Options


class Recipe(Options, title="Training"):
    """SGD with momentum, as the pruning papers train small-image networks, unless told otherwise.

    Of ``onecycle`` (Smith & Topin 2017, arXiv 1708.07120) the warm-up is the share of its rising part, 0 for
    the usual 0.3. AdamW is that of Loshchilov & Hutter (2019, arXiv 1711.05101), the norms of units are
    limited as in Brock et al. (2021, arXiv 2102.06171, §4.1), soft labels are those of Hinton et al. (2015,
    arXiv 1503.02531), hidden outputs go by :func:`coprune.training.distill.matching_loss`.

    Attributes:
        epochs: passes over (a fraction of) the training samples.
        batch_size: samples a training step, over all processes; 128 by default, 32 of transformers.
        optimizer: ``sgd`` with Nesterov momentum, the default, or ``adamw``, that of transformers.
        lr: highest learning rate.
        schedule: ``cosine`` or ``linear`` to 0, ``onecycle``, ``step`` (times ``step_factor`` every
            ``step_epochs``) or ``constant``.
        warmup: share of the steps in which the rate first rises; 0 by default, 0.1 of transformers.
        clip: largest norm of a step's gradient; none by default, 1 of transformers.
        unit_clip: largest norm of a unit's gradient, as a share of its weights'; 0.2 with ``match`` and sgd,
            or 0.
        momentum: of ``sgd``.
        weight_decay: 5e-4 by default; 0.01 of transformers; of adamw on all but biases and norms.
        fraction: share of the training samples used, drawn anew each epoch.
        images: train on so many samples only, the same ones in every epoch; all by default.
        precision: ``auto`` (mixed on a GPU, the default), ``fp32``, ``bf16`` or ``fp16``.
        distill: weight of the unpruned model's soft labels in the loss, 0 to 1; 0.9 by default.
        temperature: of the soft labels.
        match: weight of the error of hidden outputs against the unpruned model's; 10 beside soft labels.
        patience_s: seconds between two checkpoints inside an epoch.
    """

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
    def distills(self) -> bool:
        """Whether an unpruned model is learned from."""
        return self.distill > 0 or self.match > 0
