"""Top-1 accuracy and loss of a classifier on a source, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import nn

from coprune.data import Source
from coprune.data.shares import own_batches, own_steps
from coprune.errors import UserError
from coprune.forward import logits_of, moved, taking
from coprune.progress import track
from coprune.ranks.exchange import gathered, summed


@dataclass(frozen=True)
class Score:
    """Top-1 as a fraction in [0, 1], mean cross-entropy in nats, and how many samples gave them."""

    top1: float
    loss: float
    samples: int


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
            ``[B, C]``, or logits with NaN or Inf.
    """
    mine = torch.zeros(3, dtype=torch.float64)  # right, seen, loss
    for logits, labels in _passes(model, source, batch_size=batch_size, device=device, label=label):
        right = int((logits.argmax(1) == labels).sum())
        mine += mine.new_tensor([right, len(labels), float(F.cross_entropy(logits, labels, reduction="sum"))])
    total_right, seen, loss = summed(mine).tolist()
    if seen == 0:
        raise UserError("no samples to measure accuracy on")
    return Score(total_right / seen, loss / seen, int(seen))


def correctness(
    model: nn.Module, source: Source, *, batch_size: int = 250, device: str = "cpu", label: str = "accuracy"
) -> torch.Tensor:
    """Which samples of a source are classified rightly, ``[N]`` bool on the CPU; see :func:`evaluate`."""
    passes = _passes(model, source, batch_size=batch_size, device=device, label=label)
    shares = gathered([(logits.argmax(1) == labels).cpu() for logits, labels in passes])
    right = [batch for turn in zip_longest(*shares) for batch in turn if batch is not None]
    if not right:
        raise UserError("no samples to measure accuracy on")
    return torch.cat(right)


@torch.no_grad()
def _passes(
    model: nn.Module, source: Source, *, batch_size: int, device: str, label: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits ``[B, C]`` and labels ``[B]``, checked, batch by batch of this process."""
    model.to(device).eval()
    steps = own_steps(source, batch_size)
    for batch in track(own_batches(source, batch_size), label=label, total=steps):
        check_labels(batch.labels)
        wanted = batch.labels.to(device)
        inputs = moved(batch.inputs, device)
        with taking(model, inputs):
            logits = logits_of(model, inputs)
        check_logits(logits, wanted)
        yield logits, wanted


def check_labels(labels: torch.Tensor, classes: int | None = None) -> None:
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


def check_logits(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse an output that is not a finite ``[B, C]`` with every label below ``C``.

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
            f"(0…{logits.shape[1] - 1}); give --num-classes or other data"
        )
    if not bool(torch.isfinite(logits).all()):
        raise UserError("the model returns NaN or Inf on this data; check weights and normalisation")
