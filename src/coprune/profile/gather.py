"""One pass over the calibration samples gathers every declared statistic, each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coprune.data import Source
from coprune.measure.accuracy import check_labels, check_logits
from coprune.profile.collect import Collector, GateGradientCollector, MomentsCollector
from coprune.profile.moments import Moments
from coprune.profile.statistic import ClassMoments, GateGradient, Statistic, WeightScore
from coprune.profile.weights import SCORES
from coprune.progress import track
from coprune.units import ChannelGroup, CostModel


@dataclass(frozen=True)
class Profile:
    """Everything a method may look at.

    Attributes:
        groups: what can be removed.
        cost: what the groups cost.
        tensors: statistic key → name → tensor.
    """

    groups: tuple[ChannelGroup, ...]
    cost: CostModel
    tensors: Mapping[str, Mapping[str, Tensor]]

    def moments(self, wanted: ClassMoments, group: ChannelGroup) -> Moments:
        """Class-conditional moments of a group."""
        found = self.tensors[wanted.key]
        count, mean, m2 = (found[f"{group.name}/{part}"] for part in ("count", "mean", "m2"))
        return Moments(count, mean, m2)

    def weight_score(self, wanted: WeightScore, group: ChannelGroup) -> Tensor:
        """A score read off the weights, ``[U]`` float64; empty when the group has none."""
        return self.tensors[wanted.key][group.name]

    def gate_gradient(self, group: ChannelGroup) -> Tensor:
        """Mean over samples of (∂loss/∂gate)², ``[U]`` float64."""
        found = self.tensors[GateGradient().key]
        return found[f"{group.name}/sum"] / found["count"]


def gather(
    model: nn.Module,
    groups: tuple[ChannelGroup, ...],
    source: Source,
    statistics: Iterable[Statistic],
    *,
    classes: int,
    batch_size: int = 250,
    device: str = "cpu",
    label: str = "profile",
) -> dict[str, dict[str, Tensor]]:
    """Gather statistics of a model over a source.

    Args:
        model: evaluated in evaluation mode.
        groups: the units to describe.
        source: calibration samples.
        statistics: what to gather; several methods may ask for the same.
        classes: number of classes ``C`` of the data.
        batch_size: samples of a forward pass.
        device: where to compute.
        label: of the progress bar.

    Returns:
        Statistic key → name → tensor on the CPU, float64. Without a statistic that needs data the
        source is not read.

    Raises:
        UserError: labels outside the classes of data or model, NaN or Inf in the model's output.
    """
    found: dict[str, dict[str, Tensor]] = {}
    collectors: dict[str, Collector] = {}
    for wanted in statistics:
        if isinstance(wanted, WeightScore):
            score = SCORES[wanted.kind]
            found[wanted.key] = {g.name: score(model, g) for g in groups}
        elif isinstance(wanted, ClassMoments):
            collectors[wanted.key] = MomentsCollector(wanted, groups, classes=classes)
        else:
            collectors[wanted.key] = GateGradientCollector(groups)
    if not collectors:
        return found
    model.to(device).eval()
    handles = [handle for c in collectors.values() for handle in c.attach(model)]
    try:
        for inputs, labels in track(source.batches(batch_size), label=label, total=source.steps(batch_size)):
            check_labels(labels, classes)
            _one_batch(model, list(collectors.values()), inputs.to(device), labels.to(device))
    finally:
        for handle in handles:
            handle.remove()
    return {**found, **{key: c.tensors() for key, c in collectors.items()}}


def _one_batch(model: nn.Module, collectors: list[Collector], x: Tensor, y: Tensor) -> None:
    for collector in collectors:
        collector.start_batch(y)
    # Only what a collector watches gets a gradient; without any, no graph is built.
    weighted = any(isinstance(c, GateGradientCollector) for c in collectors)
    with torch.set_grad_enabled(weighted):
        logits = model(x)
        check_logits(logits.detach(), y)
        for collector in collectors:
            gates = collector.watched()
            gradients: tuple[Tensor, ...] = ()
            if gates:
                loss = F.cross_entropy(logits, y, reduction="sum")
                gradients = torch.autograd.grad(loss, gates, retain_graph=True)
            collector.end_batch(gradients)
