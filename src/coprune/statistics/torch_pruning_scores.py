"""Torch-Pruning's own importances, so that baselines are what their users get and not our reading of them.

Every kind is one class of :mod:`torch_pruning` with its defaults, which is how its users make it:
the importances of all members of a group (the filters, the batch norm's scales, the input weights of
the next layer, as far as the class reads them) are averaged, ``group_reduction="mean"``, and divided
by their mean, ``normalizer="mean"``, which no ranking within a group notices. Biases do not count.

Of a coupled group the members are those that this project found (blocks of grouped convolutions stay
together, which Torch-Pruning's own groups do not know); its classes sum over them as over their own.

- ``magnitude``, ``magnitude_l2``: ``GroupMagnitudeImportance(p=1)`` and ``(p=2)``: sum of |w|ᵖ.
- ``bn_scale``: ``BNScaleImportance()``: |γ| of the batch norms.
- ``fpgm``: ``FPGMImportance()``: sum of distances to the other units; between squared weights, unlike
  in the paper (arXiv 1811.00250), so a filter and its negative count as equal.
- ``lamp``: ``LAMPImportance()``: the L2 magnitude over the sum of those that are no smaller. Made for
  comparing layers; within one it ranks as ``magnitude_l2`` does.
- ``taylor``: ``GroupTaylorImportance()``: sum of |w · ∂loss/∂w|, the loss being the mean over all
  samples. The class leaves batch norms out.
- ``hessian``: ``GroupHessianImportance()``: sum of w² · mean of (∂loss/∂w)², the square taken sample
  by sample, over at most :data:`HESSIAN_SAMPLES` samples. The mean is handed over in ``.grad``, where
  the class looks for it: its own ``accumulate_grad`` (1.6.1) looks parameters up by name in a table
  keyed by parameter, and so forgets every sample but the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coprune.data.subsample import evenly
from coprune.distributed.collectives import summed
from coprune.distributed.world import own
from coprune.errors import UserError
from coprune.groups import ChannelGroup, channel_indices
from coprune.layers import Side, is_gpt2_linear, is_linear
from coprune.lazy import deferred
from coprune.models.copies import copied
from coprune.progress import track
from coprune.statistics.collect import Calibration, Reads
from coprune.tracing.forward import Inputs, moved, part_of, samples_in

ImportanceKind = Literal["magnitude", "magnitude_l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian"]
"""One class of Torch-Pruning each."""

score = deferred("coprune.compat.torch_pruning:score")
"""Torch-Pruning imports timm and torchvision, seconds that only its own scores are worth."""

SLICED = ("heads", "neurons")
"""Kinds of groups that are slices of linear layers, and no nodes of a dependency graph."""

HESSIAN_SAMPLES = 256
"""Each takes a backward pass of its own. Spread evenly, since the samples may be sorted by class."""


@dataclass(frozen=True)
class Importance:
    """Torch-Pruning's importance of every unit.

    Attributes:
        kind: which of its classes.
    """

    kind: ImportanceKind

    @property
    def reads(self) -> Reads:
        """A loss, where gradients count."""
        return "loss" if self.kind in ("taylor", "hessian") else "nothing"

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"importance-{self.kind}"

    def collect(self, calibration: Calibration) -> dict[str, Tensor]:
        """Importances in float64 (computed in float32); ``taylor`` and ``hessian`` pass over the samples.

        Gradients are those of the task's loss, taken on a twin.

        Raises:
            UserError: labels outside the classes of data or model, NaN or Inf in the model's output.
        """
        twin = calibration.once(_twin)
        if self.kind == "taylor":
            batches = (
                (b.inputs, b.labels) for b in calibration.batches(self.kind, size=calibration.backward)
            )
            _leave_gradients(calibration, twin, batches, power=1)
        elif self.kind == "hessian":
            _leave_gradients(calibration, twin, _singles(calibration, self.kind), power=2)
        return {
            group.name: (_of_slices if group.kind in SLICED else _of_channels)(self.kind, twin, group)
            for group in calibration.groups
        }

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
        """``[U]``; empty where the class has nothing to read, such as batch norms that are not there."""
        return tensors[group.name]


def _twin(calibration: Calibration) -> nn.Module:
    """A twin of the model in evaluation mode, all of whose parameters have gradients."""
    return copied(calibration.model).to(calibration.device).eval().requires_grad_(True)


def _singles(calibration: Calibration, what: str) -> Iterable[tuple[Inputs, Any]]:
    """Evenly spread samples of this process, one by one."""
    total = len(calibration.source)
    wanted = own(evenly(total, min(HESSIAN_SAMPLES, total)))

    def found() -> Iterator[tuple[Inputs, Any]]:
        start = 0
        for inputs, labels in calibration.source.batches(calibration.batch_size):
            for i in (n - start for n in wanted if 0 <= n - start < samples_in(inputs)):
                yield part_of(inputs, [i]), part_of(labels, [i])
            start += samples_in(inputs)

    return track(found(), label=f"{calibration.label}, {what}", total=len(wanted))


def _of_slices(kind: ImportanceKind, model: nn.Module, group: ChannelGroup) -> Tensor:
    """The same sums over a head's or a neuron's slices, averaged over the linear layers it has a part in.

    Torch-Pruning's graph is not traced through transformers; what its classes sum up is.

    Raises:
        UserError: a kind that needs more than the weights of the slices.
    """
    if kind not in _SLICE_SCORES:
        raise UserError(
            f"{kind} ranks channels; for heads and neurons there are {', '.join(_SLICE_SCORES)} and random"
        )
    parts = []
    for member in group.members:
        layer = model.get_submodule(member.layer)
        if is_linear(layer):
            scores = _SLICE_SCORES[kind](layer.get_parameter("weight")).detach().double()
            scores = scores.T if is_gpt2_linear(layer) else scores
            along = scores.sum(1) if member.role == "producer" else scores.sum(0)
            units = channel_indices(member, torch.arange(group.size)).to(along.device)
            parts.append(along[units].view(group.size, member.span).sum(1))
    return torch.stack(parts).mean(0).cpu() if parts else torch.empty(0, dtype=torch.float64)


_SLICE_SCORES: Mapping[ImportanceKind, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda w: w.abs(),
    "magnitude_l2": lambda w: w.square(),
    "taylor": lambda w: (w * w.grad).abs() if w.grad is not None else torch.zeros_like(w),
}


def _of_channels(kind: ImportanceKind, model: nn.Module, group: ChannelGroup) -> Tensor:
    """What Torch-Pruning's class makes of a group of channels, with which the first producer begins."""
    every = torch.arange(group.size)
    sides: dict[str, Side] = {"producer": "output", "carrier": "output", "consumer": "input"}
    shares = (
        (model.get_submodule(m.layer), sides[m.role], channel_indices(m, every).view(group.size, -1))
        for m in group.members
        if m.parameter is None
    )
    values = score(kind, shares).detach().double().cpu()
    # Where all units count for nothing, as in a dead layer, the normalizer divides 0 by 0.
    return torch.where(values.isnan(), 0.0, values)


def _leave_gradients(
    calibration: Calibration, model: nn.Module, batches: Iterable[tuple[Inputs, Any]], *, power: int
) -> None:
    """Set every parameter's ``.grad`` to a mean over the samples of all processes.

    Args:
        calibration: whose task's loss is taken.
        model: all its parameters require gradients.
        batches: inputs and targets on any device.
        power: 1: of the gradients. 2: of their squares; every batch is then one sample.
    """
    parameters = list(model.parameters())
    # In a trained model the batches' gradients nearly cancel; summed in float32, what is left would
    # depend on how the samples were cut into batches.
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    count = 0
    for inputs, labels in batches:
        x, y = moved(inputs, parameters[0].device), moved(labels, parameters[0].device)
        with torch.enable_grad():
            loss = calibration.loss(model, x, y)
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient.double() ** power
        count += samples_in(x)
    seen = int(summed(torch.tensor(count)))
    for parameter, total in zip(parameters, totals, strict=True):
        parameter.grad = (summed(total) / seen).to(parameter.dtype)
