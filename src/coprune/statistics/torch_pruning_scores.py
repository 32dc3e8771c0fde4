"""Torch-Pruning's own importances, so that rivals are what their users get and not our reading of them.

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
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

from coprune.data.subsample import evenly
from coprune.distributed.collectives import summed
from coprune.distributed.world import own
from coprune.errors import UserError
from coprune.groups import ChannelGroup, channel_indices, trace
from coprune.groups.trace import pruning_group
from coprune.layers import is_linear, is_transposed
from coprune.measure.accuracy import check_labels, check_logits
from coprune.models.copies import copied
from coprune.progress import track
from coprune.statistics.collect import Calibration
from coprune.tracing.forward import Inputs, logits_of, moved, part_of

ImportanceKind = Literal["magnitude", "magnitude_l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian"]
"""One class of Torch-Pruning each."""

SLICED = ("heads", "neurons")
"""Kinds of groups that are slices of linear layers, and no nodes of a dependency graph."""

HESSIAN_SAMPLES = 256
"""Each takes a backward pass of its own. Spread evenly, since the samples may be sorted by class."""

SCORERS: Mapping[ImportanceKind, Callable[[], Callable[[tp.dependency.Group], Tensor | None]]] = {
    "magnitude": partial(tp.importance.GroupMagnitudeImportance, p=1),
    "magnitude_l2": partial(tp.importance.GroupMagnitudeImportance, p=2),
    "bn_scale": tp.importance.BNScaleImportance,
    "fpgm": tp.importance.FPGMImportance,
    "lamp": tp.importance.LAMPImportance,
    "taylor": tp.importance.GroupTaylorImportance,
    "hessian": tp.importance.GroupHessianImportance,
}


@dataclass(frozen=True)
class Importance:
    """Torch-Pruning's importance of every unit.

    Attributes:
        kind: which of its classes.
    """

    kind: ImportanceKind
    per_class: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return f"importance-{self.kind}"

    def collect(self, calibration: Calibration) -> dict[str, Tensor]:
        """Importances in float64 (computed in float32); ``taylor`` and ``hessian`` pass over the samples.

        Gradients are those of the cross-entropy, taken on a twin; one sample is traced with.

        Raises:
            UserError: the model cannot be traced, labels outside the classes of data or model, NaN or
                Inf in the model's output.
        """
        twin, graph = calibration.once(_traced)
        if self.kind == "taylor":
            _leave_gradients(twin, ((b.inputs, b.labels) for b in calibration.batches(self.kind)), power=1)
        elif self.kind == "hessian":
            _leave_gradients(twin, _singles(calibration, self.kind), power=2)
        scorer = SCORERS[self.kind]()
        found = {}
        for group in calibration.groups:
            if group.kind in SLICED:
                found[group.name] = _of_slices(self.kind, twin, group)
            elif graph is not None:
                found[group.name] = _of_group(scorer, graph, twin, group)
        return found

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
        """``[U]``; empty where the class has nothing to read, such as batch norms that are not there."""
        return tensors[group.name]


def _traced(calibration: Calibration) -> tuple[nn.Module, tp.DependencyGraph | None]:
    """A twin of the model in evaluation mode, all of whose parameters have gradients, and its graph."""
    twin = copied(calibration.model).to(calibration.device).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    if all(g.kind in SLICED for g in calibration.groups):
        return twin, None
    example, _ = next(iter(calibration.source.batches(1)))
    return twin, trace(twin, moved(part_of(example, [0]), calibration.device))


def _singles(calibration: Calibration, what: str) -> Iterator[tuple[Inputs, Tensor]]:
    """Evenly spread samples of this process, one by one."""
    count = min(HESSIAN_SAMPLES, len(calibration.source))
    wanted = own(evenly(len(calibration.source), count))
    single = _spread(calibration, set(wanted))
    yield from track(single, label=f"{calibration.label}, {what}", total=len(wanted))


def _spread(calibration: Calibration, wanted: set[int]) -> Iterator[tuple[Inputs, Tensor]]:
    """The samples with the given numbers, one by one."""
    seen = 0
    for inputs, labels in calibration.source.batches(calibration.batch_size):
        check_labels(labels, calibration.classes)
        for i in range(len(labels)):
            if seen + i in wanted:
                yield part_of(inputs, [i]), labels[i : i + 1]
        seen += len(labels)


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
            score = _SLICE_SCORES[kind](layer.get_parameter("weight")).detach().double()
            score = score.T if is_transposed(layer) else score
            along = score.sum(1) if member.role == "producer" else score.sum(0)
            units = channel_indices(member, torch.arange(group.size)).to(along.device)
            parts.append(along[units].view(group.size, member.span).sum(1))
    return torch.stack(parts).mean(0).cpu() if parts else torch.empty(0, dtype=torch.float64)


_SLICE_SCORES: Mapping[ImportanceKind, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda w: w.abs(),
    "magnitude_l2": lambda w: w.square(),
    "taylor": lambda w: (w * w.grad).abs() if w.grad is not None else torch.zeros_like(w),
}


def _of_group(
    scorer: Callable[[tp.dependency.Group], Tensor | None],
    graph: tp.DependencyGraph,
    model: nn.Module,
    group: ChannelGroup,
) -> Tensor:
    if group.kind == "coupled":
        found = _as_group(graph, model, group)
    else:
        found = pruning_group(graph, model.get_submodule(group.name), list(range(group.size)))
    values = scorer(found)
    if values is None:
        return torch.empty(0, dtype=torch.float64)
    values = values.detach().double().cpu()[: group.size]
    # Where all units count for nothing, as in a dead layer, the normalizer divides 0 by 0.
    return torch.where(values.isnan(), 0.0, values)


def _as_group(graph: tp.DependencyGraph, model: nn.Module, group: ChannelGroup) -> tp.dependency.Group:
    """A group as Torch-Pruning's classes read one: channels of each layer, and the units they belong to."""
    found = tp.dependency.Group()
    # The classes make room for as many units as the first layer has channels.
    roles = [(role, group.channels(role).items()) for role in ("producer", "consumer", "carrier")]
    for role, layers in roles:
        for layer, channels in layers:
            node = graph.module2node.get(model.get_submodule(layer))
            if node is None:
                continue
            pruner = graph.get_pruner_of_module(node.module)
            prune = pruner.prune_in_channels if role == "consumer" else pruner.prune_out_channels
            dependency = tp.dependency.Dependency(prune, prune, source=node, target=node)
            found.add_dep(dependency, channels.flatten().tolist())
            units = torch.arange(group.size).repeat_interleave(channels.shape[1])
            found[len(found) - 1].root_idxs = units.tolist()
    return found


def _leave_gradients(model: nn.Module, batches: Iterable[tuple[Inputs, Tensor]], *, power: int) -> None:
    """Set every parameter's ``.grad`` to a mean over the samples of all processes.

    Args:
        model: all its parameters require gradients.
        batches: inputs and labels on any device.
        power: 1: of the gradients. 2: of their squares; every batch is then one sample.
    """
    parameters = list(model.parameters())
    # In a trained model the batches' gradients nearly cancel; summed in float32, what is left would
    # depend on how the samples were cut into batches.
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    count = 0
    for inputs, labels in batches:
        x, y = moved(inputs, parameters[0].device), labels.to(parameters[0].device)
        with torch.enable_grad():
            logits = logits_of(model, x)
            check_logits(logits.detach(), y)
            loss = F.cross_entropy(logits, y, reduction="sum")
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient.double() ** power
        count += len(y)
    seen = int(summed(torch.tensor(count)))
    for parameter, total in zip(parameters, totals, strict=True):
        parameter.grad = (summed(total) / seen).to(parameter.dtype)
