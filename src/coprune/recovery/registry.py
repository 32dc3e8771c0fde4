"""The recoveries by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from coprune.data import Source
from coprune.errors import UserError, setting
from coprune.plan import GroupDecision
from coprune.recovery.batchnorm import reestimate_batchnorm
from coprune.recovery.channel_least_squares import channel_least_squares
from coprune.recovery.names import RECOVERIES
from coprune.recovery.reconstruction import Reconstruction, held_back, reconstruct
from coprune.recovery.sequential_least_squares import LayerRecovery, least_squares
from coprune.result import TAKEN_BACK, Code, Note

UNCHANGED = Note(
    Code.UNCHANGED,
    "the recovery found nothing better than the weights after surgery; they stayed as they were",
)


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


def recovered(
    model: nn.Module,
    teacher: nn.Module,
    source: Source,
    *,
    how: str,
    kept: Mapping[str, Tensor],
    decisions: Sequence[GroupDecision] = (),
    seed: int = 0,
    device: str = "cpu",
) -> Recovered:
    """Bring accuracy back without labels, in place.

    Args:
        model: right after surgery; left in evaluation mode.
        teacher: the unpruned model.
        source: calibration samples; labels are not read.
        how: ``least-squares``; ``reconstruction``, which is least squares and then all layers together;
            ``channel-least-squares``, which looks at every layer by itself and re-estimates batch norms
            after that; ``bn``, which does only the latter; or ``none``.
        kept: layer → the output channels of the unpruned layer that it still has, ``[K]`` int64, for every
            layer that has lost some.
        decisions: what was cut; channel least squares learns from it what each layer still reads.
        seed: of the places that are looked at, and of the order of the samples.
        device: where to compute.

    Raises:
        UserError: an unknown recovery, or the models are not one network before and after surgery.
    """
    if how not in RECOVERIES:
        raise UserError(f"{setting('recovery', how)}: known are {', '.join(RECOVERIES)}")
    if how == "bn":
        return Recovered(True, reestimate_batchnorm(model, source, device=device) > 0)
    if how == "none":
        return Recovered(False)
    if how == "least-squares":
        layers = least_squares(model, teacher, source, kept=kept, seed=seed, device=device)
        return Recovered(True, any(layer.changed for layer in layers), layers)
    if how == "channel-least-squares":
        layers = channel_least_squares(
            model, teacher, source, decisions=decisions, kept=kept, seed=seed, device=device
        )
        norms = reestimate_batchnorm(model, source, device=device)
        return Recovered(True, norms > 0 or any(layer.changed for layer in layers), layers)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    # Samples that least squares has solved on would judge in its favour.
    learning, judging = held_back(source, seed=seed)
    layers = least_squares(model, teacher, learning, kept=kept, seed=seed, device=device)
    together = reconstruct(model, teacher, learning, judging=judging, kept=kept, seed=seed, device=device)
    if not together.changed:
        model.load_state_dict(weights)
        layers = least_squares(model, teacher, source, kept=kept, seed=seed, device=device)
    changed = any(layer.changed for layer in layers) or together.changed
    return Recovered(True, changed, layers, together)
