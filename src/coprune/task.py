"""The task: what a network's outputs mean. All that depends on the kind of work is this one value.

The choice of units and the recovery read no targets: they ask the task's divergence how far outputs are apart
and what an error costs. Targets are read by a metric, by a loss and by methods that look at classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from coprune.tasks import metrics, outputs
from coprune.tasks.agreement import agreement
from coprune.tasks.divergence import Divergence
from coprune.tasks.losses import PlaceLoss, class_loss, label_loss, span_loss, squared_loss
from coprune.tasks.metrics import Metric
from coprune.tasks.outputs import Outputs, Reader
from coprune.tracing.active_positions import uneven_sum
from coprune.tracing.forward import Inputs, mask_of, run

Loss = Callable[[Outputs, Any], Tensor]
"""(outputs, targets) → scalar, the mean over samples."""
OwnLoss = Callable[[Any, Any], Tensor]
"""(what the model hands back, targets) → scalar: a user's."""


@dataclass(frozen=True)
class Task:
    """What outputs mean.

    Attributes:
        name: e.g. ``segmentation``.
        summary: in a few words.
        reader: takes the tensors that count out of what the model hands back.
        divergence: how far two outputs are apart.
        metric: judges where there are targets; None: agreement with the unpruned model does.
        loss: of training and of Taylor's scores; None where there is none.
        own_loss: a user's, in place of it.
    """

    name: str
    summary: str
    reader: Reader
    divergence: Divergence
    metric: Metric | None = None
    loss: Loss | None = None
    own_loss: OwnLoss | None = None

    def read(self, output: Any, inputs: Inputs) -> Outputs:
        """What counts of an output.

        Raises:
            TypeError: it is not there.
        """
        return Outputs(tuple(self.reader(output, inputs)), mask_of(inputs))

    def outputs(self, model: torch.nn.Module, inputs: Inputs) -> Outputs:
        """One forward pass, and what counts of it."""
        return self.read(run(model, inputs), inputs)

    def signal(self, model: torch.nn.Module, inputs: Inputs) -> Tensor:
        """See :data:`coprune.tracing.active_positions.Signal`."""
        found, axis = self.outputs(model, inputs), self.divergence.axis
        parts = []
        for tensor in found.tensors:
            masked = axis == -1 and found.mask is not None and found.mask.shape == tensor.shape[:2]
            channels = axis if tensor.ndim > 2 else -1
            parts.append(uneven_sum(tensor, axis=channels, mask=found.mask if masked else None))
        return torch.stack(parts).sum()

    @property
    def has_loss(self) -> bool:
        """Whether it can be trained with targets."""
        return self.loss is not None or self.own_loss is not None

    def loss_of(self, output: Any, inputs: Inputs, targets: Any) -> Tensor:
        """The loss of an output, a mean over the samples.

        Args:
            output: what the model handed back.
            inputs: of it.
            targets: on the same device.
        """
        if self.own_loss is not None:
            return self.own_loss(output, targets)
        if self.loss is None:
            raise TypeError(f"the task '{self.name}' has no loss of its own; give loss=")
        return self.loss(self.read(output, inputs), targets)

    @cached_property
    def agreement(self) -> Metric:
        """The metric without targets."""
        return agreement(self.divergence)

    @property
    def judged(self) -> Metric:
        """The metric: that of the task, else agreement with the unpruned model."""
        return self.metric or self.agreement

    @property
    def settings(self) -> dict[str, str]:
        """What a plan says of it; nothing of a classifier's usual one."""
        if self.classifies and self.judged.name == "top1":
            return {}
        return {"task": self.name, "metric": self.judged.name}

    @property
    def classifies(self) -> bool:
        """Whether targets are class numbers, one a sample."""
        return self.name == "classification"


_LOGITS = outputs.either("logits", what="logits [N, C]")
_MAPS = outputs.either("logits", "out", "masks", what="logits [N, C, H, W]")
_IMAGES = outputs.either("sample", "reconstruction", "logits", what="images [N, C, H, W]")
_SPAN = outputs.by_name(("start_logits", "end_logits"))
_VALUES = outputs.either("logits", "predictions", what="values [N, …]")

_CLASS, _YES = Divergence("softmax"), Divergence("sigmoid")
_TOKEN, _NUMBER = Divergence("softmax", -1), Divergence("gaussian")

_TASKS = (
    Task("classification", "one class a sample", _LOGITS, _CLASS, metrics.TOP1, class_loss),
    Task("multilabel", "several labels a sample, each yes or no", _LOGITS, _YES, metrics.F1, label_loss),
    Task("regression", "numbers", _VALUES, _NUMBER, metrics.R2, squared_loss),
    Task("segmentation", "a class a pixel", _MAPS, _CLASS, metrics.MIOU, PlaceLoss(1)),
    Task("detection", "boxes: the raw heads count, your metric judges", outputs.everything, _NUMBER),
    Task("text-generation", "the next token", _LOGITS, _TOKEN, metrics.PERPLEXITY, PlaceLoss(-1, shift=True)),
    Task("token-classification", "a class a token", _LOGITS, _TOKEN, metrics.TOKEN_ACCURACY, PlaceLoss(-1)),
    Task("question-answering", "start and end of an answer", _SPAN, _CLASS, metrics.EXACT_MATCH, span_loss),
    Task("seq2seq", "a text for a text", _LOGITS, _TOKEN, metrics.OWN_PERPLEXITY, PlaceLoss(-1)),
    Task("feature-extraction", "embeddings", outputs.embeddings, Divergence("cosine")),
    Task("reconstruction", "an image for an image", _IMAGES, _NUMBER, metrics.PSNR, squared_loss),
    Task("outputs", "anything; the unpruned model's outputs are what is wanted", outputs.everything, _NUMBER),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
