"""Rivals that choose attention heads, over all layers at once, behind the signature of all methods.

Shapes: ``H`` heads of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from coprune.bounds import Share
from coprune.data import Source
from coprune.groups import ChannelGroup, channel_indices
from coprune.groups.layers import filters
from coprune.methods.base import Method, NoSettings
from coprune.methods.cahp.method import ClusterSettings, HeadClusters, cluster_heads, head_groups
from coprune.methods.cahp.salience import HeadSalience, sensitivity_of
from coprune.methods.cahp.signatures import HeadSignatures, heads_of
from coprune.methods.joint import JointRanking
from coprune.statistics import Profile, Statistic


class MichelSettings(BaseModel):
    """Settings of ``michel``.

    Attributes:
        share: of the batches that gradients are taken on; the paper takes all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: Share = 1.0


def _michel(profile: Profile, settings: MichelSettings, seed: int) -> JointRanking:
    groups = head_groups(profile, "michel")
    scores = sensitivity_of(profile, HeadSalience(settings.share), groups)
    return JointRanking(groups, tuple(scores), "expected sensitivity of the loss")


def _medoid_needs(settings: ClusterSettings) -> tuple[Statistic, ...]:
    return (HeadSignatures(settings.grid),)


def _medoid(profile: Profile, settings: ClusterSettings, seed: int) -> HeadClusters:
    return cluster_heads(profile, head_groups(profile, "medoid"), settings, seed=seed, salience=None)


def _last_layers(profile: Profile, settings: NoSettings, seed: int) -> JointRanking:
    groups = head_groups(profile, "last_layers")
    behind = torch.arange(len(groups), dtype=torch.float64).flip(0)
    scores = [count.expand(group.size) for group, count in zip(groups, behind, strict=True)]
    return JointRanking(groups, tuple(scores), "number of layers behind it")


@dataclass(frozen=True)
class HeadMagnitude:
    """Euclidean norm of the output projection's weights that read a head; needs no data."""

    per_class: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """Name of the statistic's file."""
        return "head_magnitude"

    def measure(
        self,
        model: nn.Module,
        groups: tuple[ChannelGroup, ...],
        source: Source,
        *,
        classes: int,
        device: str,
        label: str,
    ) -> dict[str, Tensor]:
        """``[H]`` float64 for every group of heads; see :class:`coprune.statistics.requirements.OwnPass`."""
        return {g.name: _slice_norms(model, g) for g in heads_of(groups)}


def _slice_norms(model: nn.Module, group: ChannelGroup) -> Tensor:
    square = torch.zeros(group.size, dtype=torch.float64)
    for consumer in group.of_role("consumer"):
        layer = model.get_submodule(consumer.layer)
        columns = filters(layer).detach().double().cpu()
        index = channel_indices(consumer, torch.arange(group.size))
        square += columns[:, index].unflatten(1, (group.size, consumer.span)).square().sum((0, 2))
    return square.sqrt()


def _head_magnitude(profile: Profile, settings: NoSettings, seed: int) -> JointRanking:
    groups = head_groups(profile, "head_magnitude")
    norms = profile.tensors[HeadMagnitude().key]
    return JointRanking(groups, tuple(norms[g.name] for g in groups), "norm of the weights that read it")


HEAD_RIVALS: tuple[Method, ...] = (
    Method(
        name="michel",
        summary="heads that the loss is most sensitive to (arXiv 1905.10650)",
        settings=MichelSettings,
        needs=lambda settings: (HeadSalience(settings.share),),
        choose=_michel,
        units=("heads",),
    ),
    Method(
        name="medoid",
        summary="the central head of each of CAHP's clusters",
        settings=ClusterSettings,
        needs=_medoid_needs,
        choose=_medoid,
        has_knee=True,
        units=("heads",),
    ),
    Method(
        name="last_layers",
        summary="heads of the first layers; the last layers' go first",
        settings=NoSettings,
        needs=lambda _: (),
        choose=_last_layers,
        units=("heads",),
    ),
    Method(
        name="head_magnitude",
        summary="heads whose part of the output projection has the largest L2 norm",
        settings=NoSettings,
        needs=lambda _: (HeadMagnitude(),),
        choose=_head_magnitude,
        units=("heads",),
    ),
)
