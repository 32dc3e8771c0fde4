"""Gather every declared statistic, each once: one pass for all activations, one for each gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.sharding import own_batches, own_steps
from coprune.groups import ChannelGroup, CostModel
from coprune.measure.accuracy import check_labels, check_logits
from coprune.progress import track
from coprune.statistics.class_moments import Collector, MomentsCollector
from coprune.statistics.fisher import output_sensitivity, reached_places
from coprune.statistics.input_covariance import Consumer, ConsumerCollector, consumers_of
from coprune.statistics.moments import Moments
from coprune.statistics.requirements import (
    ClassMoments,
    ConsumerCovariance,
    Importance,
    Statistic,
    Streamed,
    WeightScore,
)
from coprune.statistics.torch_pruning_scores import importances
from coprune.statistics.weights import SCORES
from coprune.tracing.forward import logits_of, moved


@dataclass(frozen=True)
class Profile:
    """Everything a method may look at.

    Attributes:
        groups: what can be removed.
        cost: what the groups cost.
        tensors: statistic key → name → tensor.
        device: where a method that computes much may compute.
    """

    groups: tuple[ChannelGroup, ...]
    cost: CostModel
    tensors: Mapping[str, Mapping[str, Tensor]]
    device: str = "cpu"

    def moments(self, wanted: ClassMoments, group: ChannelGroup) -> Moments:
        """Class-conditional moments of a group."""
        found = self.tensors[wanted.key]
        count, mean, m2 = (found[f"{group.name}/{part}"] for part in ("count", "mean", "m2"))
        return Moments(count, mean, m2)

    def weight_score(self, wanted: WeightScore, group: ChannelGroup) -> Tensor:
        """A score read off the weights, ``[U]`` float64; empty when the group has none."""
        return self.tensors[wanted.key][group.name]

    def importance(self, wanted: Importance, group: ChannelGroup) -> Tensor:
        """An importance by Torch-Pruning, ``[U]`` float64; empty when the group has none."""
        return self.tensors[wanted.key][group.name]

    def consumers(self, wanted: ConsumerCovariance, group: ChannelGroup) -> tuple[Consumer, ...]:
        """What the group's consumers read, and what their errors cost."""
        return consumers_of(dict(self.tensors[wanted.key]), group)


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
    """Gather statistics of a model over a source; each process over its share, merged exactly.

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
        Statistic key → name → tensor on the CPU, float64. For weight scores alone the source is not
        read; importances that need no gradients read one sample of it.

    Raises:
        UserError: labels outside the classes of data or model, NaN or Inf in the model's output, or
            importances of a model that cannot be traced.
    """
    found: dict[str, dict[str, Tensor]] = {}
    collectors: dict[str, Collector] = {}
    ranked: dict[str, Importance] = {}
    sensitive: list[ConsumerCovariance] = []
    for wanted in statistics:
        if isinstance(wanted, WeightScore):
            score = SCORES[wanted.kind]
            found[wanted.key] = {g.name: score(model, g) for g in groups}
        elif isinstance(wanted, ClassMoments):
            collectors[wanted.key] = MomentsCollector(wanted, groups, classes=classes)
        elif isinstance(wanted, ConsumerCovariance):
            sensitive.append(wanted)
        elif isinstance(wanted, Importance):
            ranked[wanted.key] = wanted
        elif isinstance(wanted, Streamed):
            collectors[wanted.key] = wanted.collector(groups, classes=classes)
        else:
            measured = wanted.measure(model, groups, source, classes=classes, device=device, label=label)
            found[wanted.key] = dict(measured)
    if ranked:
        kinds = [wanted.kind for wanted in ranked.values()]
        by_kind = importances(
            model, groups, source, kinds, classes=classes, batch_size=batch_size, device=device, label=label
        )
        found.update({key: by_kind[wanted.kind] for key, wanted in ranked.items()})
    costs: dict[str, Tensor] = {}
    if sensitive:
        costs = output_sensitivity(
            model, groups, source, batch_size=batch_size, device=device, label=f"{label}, sensitivity"
        )
        reached = reached_places(model, groups, source, batch_size=batch_size, device=device)
        for covariance in sensitive:
            collectors[covariance.key] = ConsumerCollector(
                covariance, groups, samples=len(source), classes=classes, reached=reached
            )
    if not collectors:
        return found
    model.to(device).eval()
    with ExitStack() as hooks:
        for collector in collectors.values():
            for handle in collector.attach(model):
                hooks.enter_context(handle)
        with torch.no_grad():
            steps = own_steps(source, batch_size)
            for batch in track(own_batches(source, batch_size), label=label, total=steps):
                check_labels(batch.labels, classes)
                labels = batch.labels.to(device)
                for collector in collectors.values():
                    collector.start_batch(labels, start=batch.start)
                check_logits(logits_of(model, moved(batch.inputs, device)), labels)
    found.update({key: collector.tensors() for key, collector in collectors.items()})
    for covariance in sensitive:
        found[covariance.key] |= costs
    return found
