"""A network of one group whose accuracy, or time, is a known curve of its size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from coprune.plan import GroupDecision

UNITS, SAMPLES = 1000, 4000


@dataclass
class World:
    """One group whose cost is its size; accuracy (or time) is a function of the share; all is noted."""

    curve: Callable[[float], float]
    least: float = 1 / UNITS
    asked: list[float] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)

    def decide(self, share: float) -> tuple[float, tuple[GroupDecision, ...]]:
        # As the real one: what is out of reach is refused.
        assert self.least <= share <= 1
        self.asked.append(share)
        kept = max(1, math.floor(share * UNITS + 1e-9))
        one = GroupDecision(name="g", members=(), size=UNITS, kept=tuple(range(kept)), reason="test")
        return kept / UNITS, (one,)

    def judge(self, decisions: tuple[GroupDecision, ...]) -> torch.Tensor:
        self.tried.append(share_of(decisions))
        return torch.arange(SAMPLES) < round(SAMPLES * self.curve(share_of(decisions)))

    def time_ms(self, decisions: tuple[GroupDecision, ...]) -> float:
        self.tried.append(share_of(decisions))
        return self.curve(share_of(decisions))


def share_of(decisions: tuple[GroupDecision, ...]) -> float:
    return len(decisions[0].kept) / UNITS


def true_loss(share: float) -> float:
    """One hundredth at 45 % of the cost, and with the square of the logarithm elsewhere."""
    return 0.01 * (math.log(share) / math.log(0.45)) ** 2
