"""The recoveries: one line each. Everything that names them (options, help, reports) reads it here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from coprune.errors import UserError, setting
from coprune.lazy import imported

if TYPE_CHECKING:
    from coprune.data import Source
    from coprune.recovery.base import Pair, Recovered


@dataclass(frozen=True)
class Recovery:
    """A way to bring accuracy back.

    Attributes:
        name: as it is typed.
        place: ``module:function`` of ``recover(pair, source, *, seed) -> Recovered``; imported when it runs.
        help: what it does, in brackets behind its name; may be empty.
        label: in tables and figures.
        compares: whether it needs the unpruned model.
    """

    name: str
    place: str
    help: str
    label: str
    compares: bool = True

    def run(self, pair: Pair, source: Source, *, seed: int = 0) -> Recovered:
        """Bring accuracy back without labels, in place.

        Args:
            pair: the model right after surgery, left in evaluation mode, and the unpruned one.
            source: calibration samples; labels are not read.
            seed: of the drawn places, and of the order of the samples.

        Raises:
            UserError: the models are not one network before and after surgery.
        """
        found: Recovered = imported(self.place)(pair, source, seed=seed)
        return found


_HERE = "coprune.recovery"

RECOVERIES: dict[str, Recovery] = {
    recovery.name: recovery
    for recovery in (
        Recovery("least-squares", f"{_HERE}.sequential_least_squares:recover", "", "least squares"),
        Recovery(
            "reconstruction",
            f"{_HERE}.reconstruction:recover",
            "least squares, then all layers together: better, slower",
            "reconstruction",
        ),
        Recovery(
            "channel-least-squares",
            f"{_HERE}.channel_least_squares:recover",
            "each layer by itself",
            "channel least squares",
        ),
        Recovery("bias", f"{_HERE}.mean_bias:recover", "the mean of what goes stays", "bias"),
        Recovery("bn", f"{_HERE}.batchnorm:recover", "re-estimate batch norm", "batch norm", compares=False),
        Recovery("none", f"{_HERE}.base:leave", "", "none", compares=False),
    )
}

_NAMES = tuple(RECOVERIES)
_BUT_NONE = tuple(name for name in _NAMES if name != "none")


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(f"{n} ({RECOVERIES[n].help})" if RECOVERIES[n].help else n for n in names)


RECOVERY_WORDS = {"recoveries": _words(_NAMES), "recoveries but none": _words(_BUT_NONE)}
"""Recoveries with what they do, for lines of help: ``…, bn (re-estimate batch norm)``."""

if TYPE_CHECKING:
    RecoveryName = str
    RecoveryOrNone = str
    RecoveryOrAuto = str
else:
    RecoveryName = Literal[_BUT_NONE]
    RecoveryOrNone = Literal[_NAMES]
    RecoveryOrAuto = Literal[("auto", *_NAMES)]


def find_recovery(name: str) -> Recovery:
    """The recovery of that name.

    Raises:
        UserError: unknown.
    """
    if name not in RECOVERIES:
        raise UserError(f"{setting('recovery', name)}: known are {', '.join(RECOVERIES)}")
    return RECOVERIES[name]
