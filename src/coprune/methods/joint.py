"""Choices over all groups at once, for units that compete across layers, such as attention heads.

Shapes: ``U`` units of a group, ``A`` units of all groups together, in the order of the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.plan import GroupDecision, Knee


class JointChoice(Protocol):
    """A method's answer for all groups together."""

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """The groups, in the order of the network."""

    @property
    def knee(self) -> Knee | None:
        """How many units the method itself would keep over all groups; None without an opinion."""

    def keep(self, k: int, *, why: str) -> tuple[GroupDecision, ...]:
        """Keep ``k`` units (1 … A) over all groups, in every group at least one.

        Args:
            k: fewer than there are groups still leave one in each. A method that first asks for
                ``k`` and then fills emptied groups may keep more; the reasons say so.
            why: who asked for that many.

        Returns:
            One decision a group, in the order of ``groups``.
        """


@dataclass(frozen=True)
class JointRanking:
    """Keep the units with the highest scores over all groups; of equals the first.

    Attributes:
        groups: in the order of the network.
        scores: of each group ``[U]`` float64, comparable between groups.
        meaning: what a high score means, for the reason in the plan.
    """

    groups: tuple[ChannelGroup, ...]
    scores: tuple[Tensor, ...]
    meaning: str
    knee: Knee | None = None

    def keep(self, k: int, *, why: str) -> tuple[GroupDecision, ...]:
        """See :class:`JointChoice`. Keeps ``max(k, groups)`` units; more units include the fewer."""
        best = first_best(self.scores)
        # Every group's best unit goes before all others; among the rest the score alone decides.
        by_score = torch.cat(self.scores).argsort(descending=True, stable=True)
        order = by_score[best[by_score].to(torch.int8).argsort(descending=True, stable=True)]
        kept = torch.zeros(len(best), dtype=torch.bool)
        kept[order[: max(k, len(self.groups))]] = True
        said = f"{int(kept.sum())} of {len(kept)} in all layers, with the highest {self.meaning}"
        decisions = []
        parts = kept.split([g.size for g in self.groups])
        for group, score, part in zip(self.groups, self.scores, parts, strict=True):
            here = part.nonzero().flatten().tolist()
            reason = f"{len(here)} of {group.size} here, {said} (every layer keeps its best); {why}"
            decisions.append(group.decision(here, reason, score=score.tolist()))
        return tuple(decisions)


def first_best(scores: Sequence[Tensor]) -> Tensor:
    """Marks the first of the highest of every group, ``[A]`` bool; argmax may return any of equals."""
    return torch.cat([torch.arange(len(s)) == s.argsort(descending=True, stable=True)[0] for s in scores])
