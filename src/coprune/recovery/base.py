"""What a recovery is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from coprune.data import Source
from coprune.plan import GroupDecision
from coprune.result import TAKEN_BACK, Code, Note
from coprune.task import TASKS, Task

UNCHANGED = Note(
    Code.UNCHANGED,
    "the recovery found nothing better than the weights after surgery; they stayed as they were",
)


@dataclass(frozen=True)
class Pair:
    """A network after surgery and before.

    Attributes:
        model: pruned; what a recovery changes, in place.
        teacher: the unpruned model; not changed.
        kept: layer → the output channels of the unpruned layer that it still has, ``[K]`` int64, for every
            layer that has lost some.
        decisions: what was cut; none where that is not known.
        device: where to compute.
        task: what the outputs mean.
        effort: times the usual passes, of what descends.
    """

    model: nn.Module
    teacher: nn.Module
    kept: Mapping[str, Tensor]
    decisions: Sequence[GroupDecision] = ()
    device: str = "cpu"
    task: Task = TASKS["classification"]
    effort: float = 1.0

    def ready(self) -> tuple[nn.Module, nn.Module]:
        """The model and the unpruned one, on the device and in evaluation mode."""
        return self.model.to(self.device).eval(), self.teacher.to(self.device).eval()


@dataclass(frozen=True)
class LayerRecovery:
    """What least squares did to one layer.

    Attributes:
        layer: module name.
        before, after: error of its old and of its new weights, on samples that the solver did not see, over
            the variation of what is wanted there.
        changed: whether it was given the new weights: they were better there.
        ridge: the λ that was chosen.
    """

    layer: str
    before: float
    after: float
    changed: bool
    ridge: float


@dataclass(frozen=True)
class Reconstruction:
    """What moving all layers together did.

    Attributes:
        before, after: divergence of the prediction from the unpruned model's on samples that were not
            learned from, nats a sample; no ``after`` where the descent came to NaN or Inf, or one
            sample was all that a batch norm had to learn from.
        changed: whether the new weights stayed: they were better there.
        samples: learned from.
        passes: over them.
    """

    before: float
    after: float | None
    changed: bool
    samples: int
    passes: int


@dataclass(frozen=True)
class Recovered:
    """What a recovery did.

    Attributes:
        ran: whether there was one; ``none`` is none.
        changed: whether any weight or statistic is another one.
        layers: what least squares did to each layer.
        together: what came of all layers together, where that was asked for.
    """

    ran: bool
    changed: bool = False
    layers: tuple[LayerRecovery, ...] = ()
    together: Reconstruction | None = None

    @property
    def notes(self) -> tuple[Note, ...]:
        """What a user should know of it."""
        if self.ran and not self.changed:
            return (UNCHANGED,)
        taken_back = self.together is not None and not self.together.changed
        return (TAKEN_BACK,) if taken_back else ()


def leave(pair: Pair, source: Source, *, seed: int = 0) -> Recovered:
    """The recovery that is none."""
    return Recovered(False)
