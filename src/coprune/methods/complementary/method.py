"""The project's own default: keep the units that the others predict least.

Every unit of a group is judged by what its consumers read: a unit is redundant when the consumers,
solved again on the others, put out the same. Backward elimination gives the order and the cost of
every k at once; an error of a consumer's output counts as much as the model's prediction depends on
it. How many units each group keeps is the allocation's matter (:mod:`coprune.budget.allocation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from coprune.clustering.embedding import classical_scaling
from coprune.groups import ChannelGroup
from coprune.methods.base import GroupChoice
from coprune.methods.complementary.elimination import Elimination, Reader, eliminate
from coprune.methods.complementary.redundancy import predictions, similarity, unit_covariance
from coprune.methods.complementary.settings import ComplementarySettings
from coprune.plan import GroupDecision
from coprune.progress import track
from coprune.statistics import Consumer, Profile


@dataclass(frozen=True)
class ComplementaryChoice:
    """The order of elimination of one group.

    Attributes:
        group: the group.
        elimination: order and losses.
        covariance: of the units, ``[U·e, U·e]``; ``e`` is 1 but for heads, whose channels in the same
            place have nothing in common, so that all of them count.
        consumers: what reads the group.
        knee: always None: the recovered curve of the whole network has one, a group has not.
    """

    group: ChannelGroup
    elimination: Elimination
    covariance: Tensor
    consumers: tuple[Consumer, ...]
    knee: None = None

    @property
    def loss(self) -> Tensor:
        """``[U + 1]``: squared error of the consumers when k units are kept; falls with k."""
        return self.elimination.loss.flip(0)

    @cached_property
    def _position(self) -> list[list[float]]:
        # Distance 0 for units that vary together, √2 for units that have nothing to do with each other.
        apart = 2 * (1 - similarity(self.covariance, self._each))
        return classical_scaling(apart.clamp_min(0).sqrt()).tolist()

    @property
    def _each(self) -> int:
        return len(self.covariance) // self.group.size

    def kept(self, k: int) -> Tensor:
        """The last ``k`` of the elimination, sorted, ``[K]``."""
        return self.elimination.order[self.group.size - k :].sort().values

    def keep(self, k: int, *, why: str) -> GroupDecision:
        """See :class:`coprune.methods.base.GroupChoice`."""
        size = self.group.size
        kept = self.kept(k)
        loss = self.loss / self.loss[0].clamp_min(1e-30)
        return self.group.decision(
            kept.tolist(),
            f"the {k} of {size} that the others could predict least; {why}",
            curve=tuple((i, float(loss[i])) for i in range(1, size + 1)),
            curve_name="share of the consumers' output lost",
            position=self._position,
            predicted=predictions(self.covariance, kept, each=self._each) if k < size else (),
        )


def choose_group(
    consumers: tuple[Consumer, ...], group: ChannelGroup, settings: ComplementarySettings
) -> ComplementaryChoice:
    """The elimination of one group: the losses of all layers that read it are added.

    Args:
        consumers: the layers that read it.
        group: the group.
        settings: of the method.

    Raises:
        UserError: a covariance with NaN or Inf.
    """
    readers, units = [], []
    for consumer in consumers:
        weight = consumer.weight
        if settings.weighting == "sensitivity":
            weight = weight * consumer.sensitivity.sqrt().unsqueeze(1)
        covariance = consumer.covariance
        if settings.scatter > 0 and consumer.between is not None:
            share = covariance.trace() / consumer.between.trace().clamp_min(1e-30)
            covariance = covariance + settings.scatter * share * consumer.between
        readers.append(Reader(covariance, weight))
        whole = group.kind == "heads"
        units.append(consumer.covariance if whole else unit_covariance(consumer.covariance, group.size))
    order = eliminate(readers, group.size, ridge=settings.ridge)
    return ComplementaryChoice(group, order, torch.stack(units).mean(0), consumers)


def choose(profile: Profile, settings: ComplementarySettings, seed: int) -> Sequence[GroupChoice]:
    """The eliminations of all groups."""
    groups = track(profile.groups, label="elimination", total=len(profile.groups))
    return [choose_group(profile.of(settings.statistic, g), g, settings) for g in groups]
