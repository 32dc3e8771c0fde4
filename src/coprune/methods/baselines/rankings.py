"""Baselines that score every unit on its own and keep the highest, behind the signature of all methods.

All scores but the random draw are Torch-Pruning's own, see :mod:`coprune.statistics.torch_pruning_scores`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.methods.base import GroupChoice, NoSettings, Ranking, Untouched
from coprune.seeding import generator
from coprune.statistics import Importance, Profile
from coprune.statistics.torch_pruning_scores import ImportanceKind


def choose(
    profile: Profile,
    settings: NoSettings,
    seed: int,
    *,
    kind: ImportanceKind | None,
    meaning: str,
    missing: str,
) -> Sequence[GroupChoice]:
    """The units of every group by their scores.

    Args:
        profile: holds the scores.
        settings: none.
        seed: of the random draw.
        kind: which of Torch-Pruning's scores; None: a random draw.
        meaning: what a high score means, for the reason in the plan.
        missing: why a group without scores stays whole.
    """
    choices: list[GroupChoice] = []
    for group in profile.groups:
        scores = _drawn(group, seed) if kind is None else profile.of(Importance(kind), group)
        choices.append(Ranking(group, scores, meaning) if len(scores) else Untouched(group, missing))
    return choices


def _drawn(group: ChannelGroup, seed: int) -> Tensor:
    return torch.rand(group.size, generator=generator(seed, group.name), dtype=torch.float64)
