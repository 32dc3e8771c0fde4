"""What is judged: a figure over samples, by its name, its direction and its unit.

Most figures are made of sums over samples (right ones and all; squared errors and squared deviations;
negative log-likelihoods and tokens; overlaps and unions of every class). Of these the values of single
samples are known, so that two networks are compared pair by pair. What is not is worked out by somebody
else's code, as a whole: a torchmetrics metric, a function.

Shapes: ``S`` sums of a metric; else see :mod:`coprune.tasks.outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.result import metric_label, shown_value
from coprune.tasks.outputs import Outputs

IGNORED = -100
"""Label of places that do not count, as in PyTorch and 🤗."""

Sums = Callable[[Outputs, Any], Tensor]
"""(outputs, targets) → ``[N, S]`` float64. Targets are those of the batch; of an agreement, the unpruned
model's :class:`Outputs`."""
Batches = Iterable[tuple[Any, Any]]
"""(inputs, targets), again and again."""
Whole = Callable[[nn.Module, Sequence[Batches], Callable[[Any, Any], Outputs]], Sequence[float]]
"""(model in evaluation mode, blocks of the samples, reader of outputs) → the figure of all of them, then that
of every block."""


def share(sums: Tensor) -> Tensor:
    """``[…, 2]`` (part, whole) → their ratio."""
    return sums[..., 0] / sums[..., 1].clamp_min(1e-12)


@dataclass(frozen=True)
class Metric:
    """A figure that says how good a network is.

    Attributes:
        name: as it is shown, e.g. ``miou``.
        higher_is_better: its direction.
        unit: ``%``: a share that is shown in per cent, and whose losses are in points; empty: its own.
        sums: of every sample; None where only the whole figure can be had.
        finish: sums over samples, ``[…, S]`` → the figure ``[…]``.
        whole: where there are no sums.
        pairs: whether every sample is right or wrong, and nothing else: ``sums`` is (1 or 0, 1).
        reads_targets: whether the data must have targets; an agreement reads the unpruned model's outputs.
    """

    name: str
    higher_is_better: bool = True
    unit: Literal["%", ""] = ""
    sums: Sums | None = None
    finish: Callable[[Tensor], Tensor] = share
    whole: Whole | None = None
    pairs: bool = False
    reads_targets: bool = True

    @property
    def scale(self) -> float:
        """What a loss is multiplied with to be in the unit of ``max_drop``: points of a share."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def what(self) -> str:
        """What it measures, in a sentence."""
        return "accuracy" if self.name == "top1" else self.label

    @property
    def label(self) -> str:
        """Its name as it is read."""
        return metric_label(self.name)

    def shown(self, value: float) -> str:
        """A value as it is read, e.g. ``93.24%`` or ``0.9345``."""
        return shown_value(value, self.unit)

    @property
    def loss_unit(self) -> str:
        """What a loss is counted in, in words."""
        return "points" if self.unit == "%" else self.label

    def allowed(self, asked: float | str, base: float) -> float:
        """A largest loss, in the unit of ``max_drop``.

        Args:
            asked: in that unit, or relative to the unpruned model's value, as ``1%``.
            base: that value.
        """
        return self.scale * abs(base) * float(asked[:-1]) / 100 if isinstance(asked, str) else asked

    def lost(self, before: float, after: float) -> float:
        """How much worse, in the unit of ``max_drop``; negative where it is better."""
        return self.scale * (before - after if self.higher_is_better else after - before)


def _two(part: Tensor, whole: Tensor) -> Tensor:
    return torch.stack([part.double().cpu(), whole.double().cpu()], 1)


def right(outputs: Outputs, targets: Tensor) -> Tensor:
    """Whether the largest logit is that of the class; and one, ``[N, 2]``."""
    logits = outputs.tensors[0]
    hit = logits.argmax(1) == targets.to(logits.device)
    return _two(hit, torch.ones_like(hit))


def right_places(outputs: Outputs, targets: Tensor, *, axis: int) -> Tensor:
    """Places with the right class, of those that have one, ``[N, 2]``; the classes are at ``axis``."""
    found, wanted = labelled(outputs.tensors[0], targets, axis=axis)
    counts = wanted != IGNORED
    hit = (found.argmax(-1) == wanted) & counts
    return _two(hit.flatten(1).sum(1), counts.flatten(1).sum(1))


def labelled(logits: Tensor, targets: Tensor, *, axis: int, shift: bool = False) -> tuple[Tensor, Tensor]:
    """Logits ``[N, …, C]`` with the classes last, and the classes of their places ``[N, …]``.

    Args:
        logits: ``[N, C, …]`` or ``[N, …, C]``.
        targets: int64, :data:`IGNORED` or 255 (of masks) where none counts; one-channel masks may have an
            axis for it.
        axis: where the classes are, 1 or -1.
        shift: whether every place predicts the next one's class (language models).
    """
    found = logits.movedim(axis, -1)
    wanted = targets.to(logits.device).long()
    if wanted.ndim == found.ndim and wanted.shape[1] == 1:
        wanted = wanted[:, 0]
    if shift:
        found, wanted = found[:, :-1], wanted[:, 1:]
    if axis == 1:
        wanted = wanted.masked_fill(wanted == 255, IGNORED)
        coarser = logits.ndim == 4 and wanted.ndim == 3 and wanted.shape[1:] != logits.shape[2:]
        if coarser:
            found = F.interpolate(logits, wanted.shape[1:], mode="bilinear").movedim(1, -1)
    if found.shape[-1] == 1:  # one logit: yes or no
        found = torch.cat([torch.zeros_like(found), found], -1)
    return found, wanted


def likelihood(outputs: Outputs, targets: Tensor, *, shift: bool = False) -> Tensor:
    """Negative log-likelihood of the tokens' classes, and how many have one, ``[N, 2]``."""
    found, wanted = labelled(outputs.tensors[0], targets, axis=-1, shift=shift)
    each = F.cross_entropy(found.flatten(0, -2).float(), wanted.flatten(), reduction="none")
    return _two(each.view(len(found), -1).double().sum(1), (wanted != IGNORED).flatten(1).sum(1))


def perplexity(sums: Tensor) -> Tensor:
    """Exp of the mean negative log-likelihood of a token."""
    return share(sums).exp()


def overlaps(outputs: Outputs, targets: Tensor) -> Tensor:
    """Intersection and union with the true mask, class by class, ``[N, 2C]``."""
    found, wanted = labelled(outputs.tensors[0], targets, axis=1)
    samples, classes, counts = len(found), found.shape[-1], wanted != IGNORED
    if bool((wanted[counts] >= classes).any()):
        raise IndexError(f"class {int(wanted[counts].max())} of {classes}")
    first = torch.arange(samples, device=found.device).view(-1, *[1] * (wanted.ndim - 1)) * classes
    guess, truth = found.argmax(-1) + first, wanted + first

    def areas(pixels: Tensor) -> Tensor:
        return pixels.bincount(minlength=samples * classes).view(samples, classes).double().cpu()

    inside = areas(truth[counts & (guess == truth)])
    return torch.cat([inside, areas(guess[counts]) + areas(truth[counts]) - inside], 1)


def mean_iou(sums: Tensor) -> Tensor:
    """Mean over the classes that occur of intersection over union."""
    inside, union = sums.chunk(2, -1)
    there = union > 0
    return (inside / union.clamp_min(1)).mul(there).sum(-1) / there.sum(-1).clamp_min(1)


def agreed_labels(outputs: Outputs, targets: Tensor) -> Tensor:
    """Labels of a sample that are answered right, of all (yes where the logit is positive), ``[N, 2]``."""
    logits = outputs.tensors[0]
    hit = (logits > 0) == (targets.to(logits.device) > 0.5)
    return _two(hit.flatten(1).sum(1), torch.full((len(hit),), hit[0].numel()))


def f1_sums(outputs: Outputs, targets: Tensor) -> Tensor:
    """True positives; and those with half of the false ones: their ratio is the F1 of all labels together."""
    logits = outputs.tensors[0]
    yes, due = (logits > 0).flatten(1), (targets.to(logits.device) > 0.5).flatten(1)
    hit = (yes & due).sum(1)
    return _two(hit, hit + 0.5 * (yes ^ due).sum(1))


def like(targets: Tensor, values: Tensor) -> Tensor:
    """Targets in the shape of the values; they may have axes of one more or less.

    Raises:
        ValueError: they are of another shape.
    """
    if [n for n in targets.shape if n != 1] != [n for n in values.shape if n != 1]:
        raise ValueError(f"targets {list(targets.shape)} for values {list(values.shape)}")
    return targets.to(values.device).reshape(values.shape)


def squared(outputs: Outputs, targets: Tensor) -> Tensor:
    """Squared error and number of the values, ``[N, 2]``."""
    values = outputs.tensors[0]
    error = (values.double() - like(targets, values).double()).square().flatten(1)
    return _two(error.sum(1), torch.full((len(error),), error.shape[1]))


def explained(outputs: Outputs, targets: Tensor) -> Tensor:
    """Squared error, squares, one, and the values, ``[N, 3 + C]``: what R² is made of."""
    values = outputs.tensors[0]
    wanted = like(targets, values).double().flatten(1)
    error = (values.double().flatten(1) - wanted).square().sum(1)
    parts = torch.stack([error, wanted.square().sum(1), torch.ones_like(error)], 1)
    return torch.cat([parts, wanted], 1).cpu()


def r2(sums: Tensor) -> Tensor:
    """1 − squared error by squared deviation from the mean, of all values together; at least −10⁹."""
    error, square, count = sums[..., 0], sums[..., 1], sums[..., 2]
    apart = square - sums[..., 3:].square().sum(-1) / count.clamp_min(1)
    return (1 - error / apart.clamp_min(1e-12)).clamp_min(-1e9)


def psnr(outputs: Outputs, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of a sample in dB, of values from 0 to 1; and one, ``[N, 2]``."""
    error = share(squared(outputs, targets))
    return _two(-10 * error.clamp_min(1e-12).log10(), torch.ones_like(error))


def exact_spans(outputs: Outputs, targets: Any) -> Tensor:
    """Whether start and end of the answer are right; and one, ``[N, 2]``."""
    wanted = targets if isinstance(targets, tuple | list) else tuple(targets.values())
    hits = [t.argmax(1) == w.to(t.device) for t, w in zip(outputs.tensors, wanted, strict=True)]
    hit = torch.stack(hits).all(0)
    return _two(hit, torch.ones_like(hit))


TOP1 = Metric("top1", unit="%", sums=right, pairs=True)
LABEL_ACCURACY = Metric("label_accuracy", unit="%", sums=agreed_labels)
F1 = Metric("f1", unit="%", sums=f1_sums)
R2 = Metric("r2", sums=explained, finish=r2)
MSE = Metric("mse", higher_is_better=False, sums=squared)
PSNR = Metric("psnr", sums=psnr)
MIOU = Metric("miou", sums=overlaps, finish=mean_iou)
PIXEL_ACCURACY = Metric("pixel_accuracy", unit="%", sums=partial(right_places, axis=1))
TOKEN_ACCURACY = Metric("token_accuracy", unit="%", sums=partial(right_places, axis=-1))
OWN_PERPLEXITY = Metric("perplexity", higher_is_better=False, sums=likelihood, finish=perplexity)
"""Where labels are those of the same places: of encoders and decoders."""
PERPLEXITY = replace(OWN_PERPLEXITY, sums=partial(likelihood, shift=True))
EXACT_MATCH = Metric("exact_match", unit="%", sums=exact_spans, pairs=True)
