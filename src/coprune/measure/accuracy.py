"""Top-1 accuracy and loss of a classifier on a source, without augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.sharding import own_batches, own_steps
from coprune.data.source import check_finite_inputs, name_of, where_in
from coprune.distributed.collectives import gathered
from coprune.errors import UserError, setting
from coprune.progress import track
from coprune.tracing.forward import logits_of, moved, taking
from coprune.user_code import within

_NOT_FINITE = "the model returns NaN or Inf on this data; check weights and normalisation"


class NotFiniteError(UserError):
    """A model's logits are NaN or Inf."""


def _finite(logits: Tensor) -> bool:
    return bool(torch.isfinite(logits).all())


@dataclass(frozen=True)
class Score:
    """How well a model does on samples.

    Attributes:
        top1: a fraction in [0, 1].
        loss: mean cross-entropy in nats.
        samples: that gave them.
        commonest: how many are of the commonest class.
        commonest_right: of how many of those the model is right.
    """

    top1: float
    loss: float
    samples: int
    commonest: int = 0
    commonest_right: int = 0

    @property
    def constant(self) -> float:
        """Top-1 of always answering the commonest class."""
        return self.commonest / self.samples

    @property
    def beats_constant(self) -> bool:
        """Whether the model is surely (95 %) better than always answering the commonest class, in pairs."""
        right = round(self.top1 * self.samples)
        won, lost = right - self.commonest_right, self.commonest - self.commonest_right
        return right == self.samples or won - lost > 1.645 * math.sqrt(won + lost)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval (Wilson) of the accuracy on all samples of the kind, fractions."""
        return wilson(self.top1, self.samples)


def wilson(share: float, samples: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a proportion (JASA 22, 1927, pp. 209-212), which holds at its ends too.

    Args:
        share: that was seen, in [0, 1].
        samples: that it was seen on.
        z: normal quantile; 1.96 is 95 % on two sides.
    """
    middle = share + z * z / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + (z / (2 * samples)) ** 2)
    whole = 1 + z * z / samples
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def evaluate(
    model: nn.Module, source: Source, *, batch_size: int = 250, device: str = "cpu", label: str = "accuracy"
) -> Score:
    """Top-1 accuracy over all samples of a source; each process counts on its share.

    Args:
        model: maps ``[B, …]`` to logits ``[B, C]``; evaluated in evaluation mode, and left so.
        source: where the samples come from.
        batch_size: samples of a forward pass.
        device: where to compute.
        label: of the progress bar.

    Raises:
        UserError: samples that the model does not take, a label outside its classes, an output that is not
            ``[B, C]``.
        NotFiniteError: logits with NaN or Inf; in every process, and it is a ``UserError`` too.
    """
    right, labels, loss = _judged(model, source, batch_size=batch_size, device=device, label=label)
    classes = labels.bincount().tolist()
    commonest = classes.index(max(classes))
    hit = int((right & (labels == commonest)).sum())
    samples = len(labels)
    return Score(int(right.sum()) / samples, loss / samples, samples, classes[commonest], hit)


def correctness(
    model: nn.Module, source: Source, *, batch_size: int = 250, device: str = "cpu", label: str = "accuracy"
) -> Tensor:
    """Which samples of a source are classified rightly, ``[N]`` bool on the CPU.

    Args:
        model, source, batch_size, device, label: see :func:`evaluate`.

    Raises:
        UserError: there are no samples.
        NotFiniteError: the model says NaN or Inf.
    """
    return _judged(model, source, batch_size=batch_size, device=device, label=label)[0]


@torch.no_grad()
def _judged(
    model: nn.Module, source: Source, *, batch_size: int, device: str, label: str
) -> tuple[Tensor, Tensor, float]:
    """Which samples are right, ``[N]`` bool, their labels ``[N]``, and the sum of their cross-entropies."""
    model.to(device).eval()
    mine: list[tuple[Tensor, Tensor, float, bool]] = []
    batches = track(own_batches(source, batch_size), label=label, total=own_steps(source, batch_size))
    for batch in batches:
        wanted, inputs = batch.labels.to(device), moved(batch.inputs, device)
        with within(where_in(source, batch.number)):
            check_labels(batch.labels)
            with taking(model, inputs):
                logits = logits_of(model, inputs)
            check_outputs(logits, wanted)
            if not (finite := _finite(logits)):
                check_finite_inputs(inputs)
        loss = float(F.cross_entropy(logits, wanted, reduction="sum"))
        mine.append(((logits.argmax(1) == wanted).cpu(), batch.labels, loss, finite))
    # In the order of the source: whoever has fewer batches ends first.
    every = [batch for turn in zip_longest(*gathered(mine)) for batch in turn if batch is not None]
    if not every:
        raise UserError("no samples to measure accuracy on")
    right, labels, losses, finite_ones = zip(*every, strict=True)
    # Whoever catches it does so in every process.
    with within(name_of(source)):
        if not all(finite_ones):
            raise NotFiniteError(_NOT_FINITE)
    return torch.cat(right), torch.cat(labels), sum(losses)


def check_labels(labels: Tensor, classes: int | None = None) -> None:
    """Refuse labels that are no class.

    Args:
        labels: ``[N]`` int64.
        classes: how many there are, when that is known.

    Raises:
        UserError: a negative label, or one that is too large.
    """
    if len(labels) and int(labels.min()) < 0:
        raise UserError(f"negative label {int(labels.min())}; labels count from 0")
    if classes is not None and len(labels) and int(labels.max()) >= classes:
        raise UserError(f"label {int(labels.max())} is outside the data's {classes} classes")


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """:func:`check_outputs`, and that all logits are finite.

    Raises:
        NotFiniteError: some are not; in the process that sees it.
    """
    check_outputs(logits, labels)
    check_finite(logits)


def check_finite(output: Tensor) -> None:
    """Refuse an output with NaN or Inf.

    Raises:
        NotFiniteError: in the process that sees it.
    """
    if not _finite(output):
        raise NotFiniteError(_NOT_FINITE)


def check_outputs(logits: Tensor, labels: Tensor) -> None:
    """Refuse an output that is not ``[B, C]`` with every label below ``C``.

    Args:
        logits: what the model returned for a batch.
        labels: ``[B]`` int64.

    Raises:
        UserError: one line that says which of these it is.
    """
    if logits.ndim != 2 or len(logits) != len(labels):
        raise UserError(
            f"the model returns {list(logits.shape)} for {len(labels)} samples; "
            "a classifier returns one row of logits a sample"
        )
    if int(labels.max()) >= logits.shape[1]:
        raise UserError(
            f"label {int(labels.max())} is outside the model's {logits.shape[1]} classes "
            f"(0…{logits.shape[1] - 1}); give {setting('num_classes')} or other data"
        )
