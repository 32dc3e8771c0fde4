"""Rivals that score every unit on its own and keep the highest, behind the signature of all methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from coprune.profile import GateGradient, Profile, Statistic, WeightScore
from coprune.select import GroupChoice, Method, NoSettings, Ranking, Untouched
from coprune.units import ChannelGroup

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
    digest = hashlib.blake2b(f"{seed}/{group.name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.rand(group.size, generator=generator, dtype=torch.float64)


def _weights(kind: str) -> Score:
    wanted = WeightScore(kind)
    return lambda profile, group, seed: profile.weight_score(wanted, group)


RANDOM = _ranked("random", "any channels", "lot", (), _random)
MAGNITUDE = _ranked(
    "magnitude",
    "largest L1 norm of the filter (arXiv 1608.08710)",
    "L1 norm of the filter",
    (WeightScore("l1_norm"),),
    _weights("l1_norm"),
)
BN_SCALE = _ranked(
    "bn_scale",
    "largest scale of the batch norm behind it (arXiv 1708.06519)",
    "batch-norm scale",
    (WeightScore("bn_scale"),),
    _weights("bn_scale"),
    missing="no batch norm with a scale behind these channels",
)
FPGM = _ranked(
    "fpgm",
    "farthest from the geometric median of the filters (arXiv 1811.00250)",
    "distance from the other filters",
    (WeightScore("geometric_median"),),
    _weights("geometric_median"),
)
TAYLOR = _ranked(
    "taylor",
    "largest first-order effect on the loss (arXiv 1906.10771)",
    "first-order effect on the loss",
    (GateGradient(),),
    lambda profile, group, seed: profile.gate_gradient(group),
)
