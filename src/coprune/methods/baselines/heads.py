"""Rivals that choose attention heads, over all layers at once, behind the signature of all methods.

Shapes: ``H`` heads of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.layers import filters
from coprune.methods.base import NoSettings
from coprune.methods.baselines.entries import MichelSettings
from coprune.methods.cahp.method import HeadClusters, cluster_heads, head_groups
from coprune.methods.cahp.salience import HeadSalience, sensitivity_of
from coprune.methods.cahp.settings import ClusterSettings
from coprune.methods.cahp.signatures import heads_of
from coprune.methods.joint import JointRanking
from coprune.statistics import Calibration, Profile
from coprune.statistics.collect import Reads


def michel(profile: Profile, settings: MichelSettings, seed: int) -> JointRanking:
    """Heads by the expected sensitivity of the loss."""
    groups = head_groups(profile, "michel")
    scores = sensitivity_of(profile, HeadSalience(settings.share), groups)
    return JointRanking(groups, tuple(scores), "expected sensitivity of the loss")


def medoid(profile: Profile, settings: ClusterSettings, seed: int) -> HeadClusters:
    """The medoids of CAHP's clusters."""
    return cluster_heads(profile, head_groups(profile, "medoid"), settings, seed=seed, salience=None)


def last_layers(profile: Profile, settings: NoSettings, seed: int) -> JointRanking:
    """Heads by their layer; the last layers' go first."""
    groups = head_groups(profile, "last_layers")
    behind = torch.arange(len(groups), dtype=torch.float64).flip(0)
    scores = [count.expand(group.size) for group, count in zip(groups, behind, strict=True)]
    return JointRanking(groups, tuple(scores), "number of layers behind it")


@dataclass(frozen=True)
class HeadMagnitude:
    """Euclidean norm of the output projection's weights that read a head; needs no data."""

    key: ClassVar[str] = "head_magnitude"
    reads: ClassVar[Reads] = "nothing"

    def collect(self, calibration: Calibration) -> dict[str, Tensor]:
        """See :class:`coprune.statistics.Statistic`."""
        found = {}
        for group in heads_of(calibration.groups):
            square = torch.zeros(group.size, dtype=torch.float64)
            for layer, channels in group.channels("consumer").items():
                weight = filters(calibration.model.get_submodule(layer)).detach().double().cpu()
                square += weight[:, channels].square().sum((0, 2))
            found[group.name] = square.sqrt()
        return found

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
        """``[H]`` float64."""
        return tensors[group.name]


def head_magnitude(profile: Profile, settings: NoSettings, seed: int) -> JointRanking:
    """Heads by the norm of the weights that read them."""
    groups = head_groups(profile, "head_magnitude")
    norms = tuple(profile.of(HeadMagnitude(), group) for group in groups)
    return JointRanking(groups, norms, "norm of the weights that read it")
