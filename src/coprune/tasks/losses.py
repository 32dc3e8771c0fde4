"""What training minimises and gradient scores differentiate: means over samples of outputs and targets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coprune.tasks.metrics import IGNORED, labelled, like
from coprune.tasks.outputs import Outputs


def class_loss(outputs: Outputs, targets: Tensor) -> Tensor:
    """Cross-entropy of class numbers ``[N]``."""
    return F.cross_entropy(outputs.tensors[0], targets)


class PlaceLoss:
    """Cross-entropy of the classes of places.

    Args:
        axis: where the classes are, 1 or -1.
        shift: whether every place predicts the next one's class (language models).
    """

    def __init__(self, axis: int, *, shift: bool = False) -> None:
        self._axis, self._shift = axis, shift

    def __call__(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Mean over the places that have a class."""
        found, wanted = labelled(outputs.tensors[0], targets, axis=self._axis, shift=self._shift)
        return F.cross_entropy(found.flatten(0, -2), wanted.flatten(), ignore_index=IGNORED)


def label_loss(outputs: Outputs, targets: Tensor) -> Tensor:
    """Binary cross-entropy of independent labels."""
    logits = outputs.tensors[0]
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits))


def squared_loss(outputs: Outputs, targets: Tensor) -> Tensor:
    """Mean squared error."""
    values = outputs.tensors[0]
    return F.mse_loss(values, like(targets, values).to(values))


def span_loss(outputs: Outputs, targets: Any) -> Tensor:
    """Mean cross-entropy of start and end of an answer."""
    wanted = targets if isinstance(targets, tuple | list) else tuple(targets.values())
    pairs = zip(outputs.tensors, wanted, strict=True)
    return torch.stack([F.cross_entropy(found, due.to(found.device)) for found, due in pairs]).mean()
