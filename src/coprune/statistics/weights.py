"""Norms of units that are read off the weights alone; they need no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.layers import filters
from coprune.statistics.collect import Calibration, Reads


@dataclass(frozen=True)
class L1Norm:
    """Sum of the absolute weights of every unit (Li et al. 2017, arXiv 1608.08710), over all producers."""

    key: ClassVar[str] = "weights-l1_norm"
    reads: ClassVar[Reads] = "nothing"

    def collect(self, calibration: Calibration) -> dict[str, Tensor]:
        """See :class:`coprune.statistics.Statistic`."""
        found = {}
        for group in calibration.groups:
            norm = torch.zeros(group.size, dtype=torch.float64)
            for layer, channels in group.channels("producer").items():
                weight = filters(calibration.model.get_submodule(layer)).detach().double().cpu()
                norm += weight[channels.flatten()].reshape(group.size, -1).abs().sum(1)
            found[group.name] = norm
        return found

    def of_group(self, tensors: Mapping[str, Tensor], group: ChannelGroup) -> Tensor:
        """``[U]`` float64."""
        return tensors[group.name]
