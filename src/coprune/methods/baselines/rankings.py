"""Rivals that score every unit on its own and keep the highest, behind the signature of all methods.

All scores but the lot are Torch-Pruning's own, see :mod:`coprune.statistics.torch_pruning_scores`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.methods.base import GroupChoice, Method, NoSettings, Ranking, Untouched
from coprune.seeding import generator
from coprune.statistics import Importance, Profile, Statistic
from coprune.statistics.requirements import ImportanceKind

Score = Callable[[Profile, ChannelGroup, int], Tensor]


def _ranked(
    name: str, summary: str, meaning: str, needs: tuple[Statistic, ...], score: Score, missing: str = ""
) -> Method:
    def choose(profile: Profile, settings: NoSettings, seed: int) -> Sequence[GroupChoice]:
        choices: list[GroupChoice] = []
        for group in profile.groups:
            values = score(profile, group, seed)
            choices.append(Ranking(group, values, meaning) if len(values) else Untouched(group, missing))
        return choices

    return Method(name, summary, NoSettings, lambda _: needs, choose)


def _random(profile: Profile, group: ChannelGroup, seed: int) -> Tensor:
    return torch.rand(group.size, generator=generator(seed, group.name), dtype=torch.float64)


def _torch_pruning(
    kind: ImportanceKind,
    summary: str,
    meaning: str,
    *,
    missing: str = "Torch-Pruning reads no weights of these channels",
) -> Method:
    wanted = Importance(kind)

    def score(profile: Profile, group: ChannelGroup, seed: int) -> Tensor:
        return profile.importance(wanted, group)

    return _ranked(kind, summary, meaning, (wanted,), score, missing)


_CHANNELS_ONLY = ("bn_scale", "fpgm", "lamp", "hessian")
"""What these read, heads and neurons have not, or not in a form that Torch-Pruning would see."""

_RANKINGS: tuple[Method, ...] = (
    _ranked("random", "any channels", "lot", (), _random),
    _torch_pruning(
        "magnitude",
        "largest L1 norm of all weights that belong to a channel (after arXiv 1608.08710)",
        "L1 norm of its weights",
    ),
    _torch_pruning(
        "magnitude_l2",
        "largest L2 norm of all weights that belong to a channel (arXiv 2301.12900)",
        "L2 norm of its weights",
    ),
    _torch_pruning(
        "bn_scale",
        "largest scale of the batch norm behind it (arXiv 1708.06519)",
        "batch-norm scale",
        missing="no batch norm with a scale behind these channels",
    ),
    _torch_pruning(
        "fpgm",
        "farthest from all other channels' weights (after arXiv 1811.00250)",
        "distance from the other channels' weights",
    ),
    _torch_pruning(
        "lamp",
        "largest L2 norm in proportion to those that are no smaller (after arXiv 2010.07611)",
        "layer-adaptive magnitude",
    ),
    _torch_pruning(
        "taylor",
        "largest first-order effect of its weights on the loss (after arXiv 1906.10771)",
        "first-order effect on the loss",
    ),
    _torch_pruning(
        "hessian",
        "largest second-order effect of its weights on the loss (Optimal Brain Damage, NeurIPS 1989)",
        "second-order effect on the loss",
    ),
)

RIVALS = tuple(replace(m, units=("inner", "coupled")) if m.name in _CHANNELS_ONLY else m for m in _RANKINGS)
