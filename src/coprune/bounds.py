"""Which numbers a setting takes: one type a kind of number, for command line, job files and Python alike.

The types are pydantic's: a field ``lr: Rate`` refuses what is no finite number inside its range, and says
which number was meant. Knows nothing of torch.
"""

from __future__ import annotations

import contextlib
import math
import operator
from dataclasses import dataclass
from typing import Annotated, Any, SupportsFloat, SupportsIndex

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError, core_schema

INF = math.inf


@dataclass(frozen=True)
class Bounds:
    """A range of numbers, as metadata of a type: ``Annotated[int, Bounds(1, 8)]``.

    Attributes:
        low, high: the ends; a ``high`` of infinity only asks for a finite number.
        above: whether ``low`` itself is outside.
        below: whether ``high`` itself is outside.
        words: what may stand instead of a number.
        relative: whether a number of per cent, ``1%``, may, as that text.
    """

    low: float
    high: float = INF
    above: bool = False
    below: bool = False
    words: tuple[str, ...] = ()
    relative: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Instead of pydantic's own numbers: percentages, booleans and what was meant are known here."""
        whole = source is int
        return core_schema.no_info_plain_validator_function(lambda value: self.checked(value, whole=whole))

    def checked(self, value: object, *, whole: bool) -> float | str:
        """The number, an int where it counts something.

        Args:
            value: a number of any kind, or text that says one.
            whole: whether it counts something.

        Raises:
            PydanticCustomError: no such number; says the range and the nearest number in it.
        """
        if isinstance(value, str) and value in self.words:
            return value
        if self.relative and isinstance(value, str) and value.strip().endswith("%"):
            return f"{self.checked(value.strip()[:-1], whole=whole):g}%"
        number = _number(value)
        if number is not None and math.isfinite(number) and (not whole or number == int(number)):
            exact = int(number) if whole else float(number) + 0.0  # −0 becomes 0
            if self._holds(exact):
                return exact
        meant = self._meant(value, number, whole=whole)
        hint = "" if meant is None else f"; did you mean {meant if whole else format(meant, 'g')}?"
        raise PydanticCustomError("number", "{range}", {"range": self._words(whole=whole) + hint})

    def _holds(self, number: float) -> bool:
        over = number > self.low if self.above else number >= self.low
        return over and (number < self.high if self.below else number <= self.high) and number < INF

    def _meant(self, value: object, number: float | None, *, whole: bool) -> float | None:
        """The nearest number that could have been meant; None where there is none."""
        if isinstance(value, str) and value.strip().endswith("%"):
            number = _number(value.strip()[:-1])
            number = None if number is None else number / (1 if self.high == 100 else 100)
        elif number is not None and self.high == 1 and 5 <= number <= 100:
            number /= 100  # a share given in per cent
        if number is None or math.isnan(number):
            return None
        nearest = min(max(number, self.low), self.high)
        nearest = round(nearest) if whole and nearest < INF else nearest
        return nearest if self._holds(nearest) else None

    def _words(self, *, whole: bool) -> str:
        """E.g. ``a number in (0, 1]``."""
        what = "a whole number" if whole else "a number" if self.high < INF else "a finite number"
        if whole and self.high < INF:
            return f"{what} from {int(self.low)} to {int(self.high)}"
        if self.high == INF:
            return f"{what} {'above' if self.above else 'of at least'} {self.low:g}"
        return f"{what} in {'[('[self.above]}{self.low:g}, {self.high:g}{'])'[self.below]}"


def _number(value: object) -> int | float | None:
    """What a value says as a number; None where it says none."""
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, str) and len(value) < 300:
            with contextlib.suppress(ValueError):
                return int(value)
        if isinstance(value, SupportsIndex):
            whole = operator.index(value)
            return whole if abs(whole) < 10**300 else INF
        return float(value) if isinstance(value, str | SupportsFloat) else None
    except (ValueError, TypeError, OverflowError, RuntimeError):  # a tensor of several numbers
        return None


Share = Annotated[float, Bounds(0, 1, above=True)]
"""A part of a whole: (0, 1]."""

Weight = Annotated[float, Bounds(0, 1)]
"""How much one of two things counts: [0, 1]."""

BelowOne = Annotated[float, Bounds(0, 1, below=True)]

Drop = Annotated[float | str, Bounds(0, 100, relative=True)]
"""Of a metric: percentage points of a share, else its own unit; or relative to its value, ``1%``."""

Positive = Annotated[float, Bounds(0, above=True)]

NotNegative = Annotated[float, Bounds(0)]

Seed = Annotated[int, Bounds(0, 2**64 - 1)]

Threads = Annotated[int, Bounds(1, 1024)]

Epochs = Annotated[int, Bounds(0, 100_000)]

Samples = Annotated[int, Bounds(1, 10**9)]
"""Of a data set, or of a part of it."""

Calibration = Annotated[int, Bounds(2, 10**9)]

Batch = Annotated[int, Bounds(1, 100_000)]
"""Samples at once; whether the memory suffices depends on the model (:mod:`coprune.measure.memory`)."""

Block = Annotated[int, Bounds(1, 65_536)]
"""Units, channels or places that go together."""

Channels = Annotated[int, Bounds(1, 65_536)]

Classes = Annotated[int, Bounds(1, 10**6)]

Length = Annotated[int, Bounds(1, 10**6)]
"""Of one side of a sample."""


def _device(name: str) -> str:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdecimal()):
        raise PydanticCustomError("device", "known are auto, cpu, cuda")
    return name


def _named(device: object) -> object:
    return str(device) if type(device).__module__ == "torch" else device


Device = Annotated[str, BeforeValidator(_named), AfterValidator(_device)]
"""``auto``, ``cpu``, ``cuda`` or ``cuda:0``; a ``torch.device`` goes by its name."""
