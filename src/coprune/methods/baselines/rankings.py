"""Baselines that score every unit on its own and keep the highest, behind the signature of all methods.

All scores but the random draw are Torch-Pruning's own, see :mod:`coprune.statistics.torch_pruning_scores`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.methods.base import GroupChoice, NoSettings, Ranking, Untouched
from coprune.seeding import generator
from coprune.statistics import Importance, Profile
from coprune.statistics.torch_pruning_scores import ImportanceKind


def random(profile: Profile, settings: NoSettings, seed: int) -> list[Ranking]:
    """A draw of the units of every group."""

    def draw(group: ChannelGroup) -> Tensor:
        return torch.rand(group.size, generator=generator(seed, group.name), dtype=torch.float64)

    return [Ranking(group, draw(group), "random draw") for group in profile.groups]


def choose(
    profile: Profile, settings: NoSettings, seed: int, *, kind: ImportanceKind, meaning: str, missing: str
) -> list[GroupChoice]:
    """The units of every group by their scores.

    Args:
        profile: holds the scores.
        settings: none.
        seed: nothing is drawn.
        kind: which of Torch-Pruning's scores.
        meaning: what a high score means, for the reason in the plan.
        missing: why a group without scores stays whole.
    """
    found = [(group, profile.of(Importance(kind), group)) for group in profile.groups]
    return [Ranking(g, scores, meaning) if len(scores) else Untouched(g, missing) for g, scores in found]
