"""What a selection method is: what it needs to see, and a choice of K units of a group for any K.

A method never learns how many units will be asked for: a budget, a search or its own knee decides
that later, on the same choice. That is what makes another budget free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from coprune.options import Options
from coprune.plan import GroupDecision, Knee, ReasonCode
from coprune.skipped import Coded

if TYPE_CHECKING:
    from torch import Tensor

    from coprune.groups import ChannelGroup
    from coprune.methods.joint import JointChoice
    from coprune.statistics import Profile, Statistic


class GroupChoice(Protocol):
    """A method's answer for one group."""

    @property
    def group(self) -> ChannelGroup:
        """The group."""

    @property
    def knee(self) -> Knee | None:
        """How many units the method itself would keep; None when it has no opinion."""

    def keep(self, k: int, *, why: str) -> GroupDecision:
        """Keep exactly ``k`` units (1 … U). ``why`` says who asked for that many."""


class Lack(Coded):
    """What a method would read and is not there: a stable word, and a sentence about the method."""

    CLASSES = "no_classes", "it looks at classes, and these samples have no class each"
    LOSS = "no_loss", "it takes gradients of a loss, and these samples have no targets to take one on"


class NoSettings(Options):
    """Settings of a method that has none."""


@dataclass(frozen=True)
class Method:
    """A registry entry.

    Attributes:
        name: what the user types.
        summary: one line for ``--help`` and the page.
        settings: pydantic model of the method's options.
        needs: the statistics to gather, given the settings; they say what they read beside inputs.
        choose: one choice a group, or one for all groups together, given profile, settings and seed.
        has_knee: whether the choices say how many units to keep.
        knee_of_curve: whether, with nothing asked, the knee of the recovered accuracy of the whole
            network over its MACs decides.
        allocation: how a budget is shared out unless the user says otherwise: ``uniform``, or
            ``measured`` (:mod:`coprune.budget.allocation`): then its choices know their loss for every size.
        joint: whether all groups are chosen from together, and so share out any budget by themselves.
        recovery: without labels, unless the user says otherwise.
        units: the kinds of groups that the method can choose from.
    """

    name: str
    summary: str
    settings: type[Options]
    needs: Callable[[Any], tuple[Statistic, ...]]
    choose: Callable[[Profile, Any, int], Sequence[GroupChoice] | JointChoice]
    has_knee: bool = False
    knee_of_curve: bool = False
    allocation: Literal["uniform", "measured"] = "uniform"
    joint: bool = False
    recovery: Literal["least-squares", "bn", "bias", "none"] = "least-squares"
    units: tuple[str, ...] = ("inner", "heads", "neurons", "coupled")

    def lacking(self, options: Options, *, classes: bool, loss: bool) -> Lack | None:
        """What the method would read with these settings and is not there; None when it can run.

        Args:
            options: the method's settings.
            classes: whether each sample has one class, and how many there are is known.
            loss: whether there are targets that a loss can be taken on.
        """
        reads = {statistic.reads for statistic in self.needs(options)}
        if "classes" in reads and not classes:
            return Lack.CLASSES
        return Lack.LOSS if "loss" in reads and not loss else None


@dataclass(frozen=True)
class Ranking:
    """Keep the units with the highest scores; the first of equals.

    Attributes:
        group: the group.
        score: ``[U]`` float64.
        meaning: what a high score means, for the reason in the plan.
    """

    group: ChannelGroup
    score: Tensor
    meaning: str
    knee: Knee | None = None

    def keep(self, k: int, *, why: str) -> GroupDecision:
        """See :class:`GroupChoice`."""
        order = self.score.argsort(descending=True, stable=True)
        reason = f"the {k} of {self.group.size} with the highest {self.meaning}; {why}"
        return self.group.decision(order[:k].tolist(), reason, score=self.score.tolist())


@dataclass(frozen=True)
class Untouched:
    """A group that the method has nothing to say about: all units stay, whatever is asked."""

    group: ChannelGroup
    cause: str
    knee: Knee | None = None

    def keep(self, k: int, *, why: str) -> GroupDecision:
        """See :class:`GroupChoice`."""
        size = self.group.size
        reason = f"all {size} stay: {self.cause}"
        return self.group.decision(range(size), reason, reason_code=ReasonCode.LEFT_WHOLE)
