"""How a metric is spoken of: its name, its direction, its values and what is lost of it.

A share is shown in per cent and its losses in points; another figure as it is, its losses in its own unit.
What is compared with the unpruned model and not with targets is an agreement, never an accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coprune.comparison import BaseFigures
from coprune.plan import Plan
from coprune.report.formatting import NB, minus, percent, points
from coprune.result import LARGE, Judged, Result, Stage, loss_places, metric_label, shown_loss, shown_value

CLASSIFICATION = "classification"
"""The task of runs that do not state one."""

_AGREEMENTS = {
    "agreement": ("agreement with the unpruned model", "on {} of the {}"),
    "cosine": ("mean cosine to the unpruned model's outputs", "to a mean cosine of {}"),
    "r2": ("R² of the unpruned model's outputs", "to an R² of {}"),
}
"""Metrics without targets: as a noun, and how far a model agrees."""
_CELLS = {
    CLASSIFICATION: "samples",
    "multilabel": "labels",
    "segmentation": "pixels",
    **dict.fromkeys(("seq2seq", "text-generation", "token-classification"), "tokens"),
}
"""What an agreement is a share of."""
_WIDE = 20
"""So many times the smallest value make an axis logarithmic, where lower is better."""


@dataclass(frozen=True)
class MetricWords:
    """A metric in words.

    Attributes:
        name: e.g. ``miou``.
        rises: whether higher is better.
        unit: ``%``, a share; empty: its own.
        base: the unpruned model's value, where it is known.
        task: what the outputs mean.
    """

    name: str = "top1"
    rises: bool = True
    unit: str = "%"
    base: float | None = None
    task: str = CLASSIFICATION

    @property
    def agrees(self) -> bool:
        """Whether it compares with the unpruned model: that one agrees with itself."""
        itself = self.base is not None and self.base > 1 - 1e-6
        return self.name == "agreement" or (self.name in _AGREEMENTS and itself)

    @property
    def label(self) -> str:
        """Its name as it is read."""
        return metric_label(self.name)

    @property
    def noun(self) -> str:
        """Within a sentence."""
        return _AGREEMENTS[self.name][0] if self.agrees else self.short

    @property
    def short(self) -> str:
        """At an axis, and over a column."""
        return "accuracy" if self.name == "top1" else self.label

    @property
    def better(self) -> str:
        """``, lower is better``; nothing where everybody knows."""
        known = self.name == "top1" or self.agrees
        return "" if known else f", {'higher' if self.rises else 'lower'} is better"

    @property
    def heading(self) -> str:
        """Over values without a unit: ``top-1 in %``, ``perplexity, lower is better``."""
        return f"{self.phrase}{' in %' if self.unit == '%' else ''}{self.better}"

    @property
    def phrase(self) -> str:
        """What figures are of."""
        return self.label if self.name == "top1" else self.noun

    @property
    def arrow(self) -> str:
        """Where better is, after a column's name; nothing of top-1."""
        return "" if self.name == "top1" else " ↑" if self.rises else " ↓"

    @property
    def scale(self) -> float:
        """From values to what is drawn, and to what losses are counted in."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def sign(self) -> int:
        """1 where higher is better, else −1."""
        return 1 if self.rises else -1

    @property
    def drop(self) -> str:
        """The way to worse values."""
        return "drop" if self.rises else "rise"

    def loss_of(self, value: float, base: float) -> float:
        """How much worse than a base, in points or the metric's unit."""
        return self.scale * self.sign * (base - value)

    def number(self, value: float) -> str:
        """A value or a deviation in a table, without its unit: ``93.84``, ``0.9345``, ``53.60``."""
        if abs(value) >= LARGE:
            return minus(shown_value(value, self.unit))
        places = 2 if self.unit == "%" else max(0, loss_places(self.base or 1.0))
        return minus(f"{self.scale * value:.{places}f}")

    def figure(self, value: float) -> str:
        """A value: ``93.84 %``, ``0.9345``."""
        return percent(value, 2) if self.unit == "%" else minus(shown_value(value, self.unit))

    def named(self, value: float) -> str:
        """A value where nothing around says of what; an accuracy's says it by its per cent."""
        return self.figure(value) if self.name == "top1" else f"{self.label} {self.figure(value)}"

    def amount(self, loss: float) -> str:
        """A loss or a spread without its unit: ``0.78``, ``0.0031``; a gain is negative."""
        return minus(shown_loss(loss, self.unit, about=self.base or 1.0))

    def lost(self, loss: float, interval: tuple[float, float] | None = None) -> str:
        """A loss with an interval where there is one: ``0.21 (−0.12 to 0.55)``."""
        ends = " to ".join(map(self.amount, interval or ()))
        return self.amount(loss) + (f" ({ends})" if ends else "")

    def of_loss(self, amount: str) -> str:
        """With its unit: ``0.5 points``, ``0.0031 miou``."""
        if self.unit == "%":
            return f"{amount} point{'' if amount == '1' else 's'}"
        return f"{amount} {self.label}"

    def loss(self, amount: str = "") -> str:
        """In words: ``0.5 points lost``, ``0.0031 miou lost``, ``14 more perplexity``; or before amounts."""
        of_more = self.unit != "%" and not self.rises
        return (f"{amount} more {self.label}" if of_more else f"{self.of_loss(amount)} lost").strip()

    def signed(self, value: float) -> str:
        """How far a value is from the unpruned model's: ``−0.78``, ``+14``."""
        gone = value - (self.base or 0.0)
        return ("+" if gone >= 0 else "") + self.number(gone)

    def change(self, value: float) -> str:
        """The same in words: ``−0.78 points``, ``0.0031 lost``, ``14 more``."""
        gone = value - (self.base or 0.0)
        if self.unit == "%":
            return points(gone)
        way = ("gained" if gone > 0 else "lost") if self.rises else ("less" if gone < 0 else "more")
        return f"{self.amount(abs(gone))} {way}"

    def outcome(self, value: float) -> str:
        """What pruning came to: ``accuracy 93.84 % → 93.06 % (−0.78 points)``."""
        if self.agrees:
            return f"what is left {self.agreeing(value)}"
        if self.base is None:
            return f"{self.noun} {self.figure(value)}"
        return f"{self.noun} {self.figure(self.base)}{NB}→ {self.figure(value)} ({self.change(value)})"

    def agreeing(self, value: float, interval: str = "") -> str:
        """Of an agreement: ``agrees with the unpruned model on 97.30 % of the samples``."""
        how, cells = _AGREEMENTS[self.name][1], _CELLS.get(self.task, "answers")
        return f"agrees with the unpruned model {how.format(self.figure(value) + interval, cells)}"

    def axis(self, values: list[float]) -> dict[str, Any]:
        """An upright axis for values as they are drawn; logarithmic where bad ones would hide the good."""
        if self.unit == "%":
            return {"title": {"text": f"{self.short}, %"}}
        title = f"{self.label}{self.better}"
        if not self.rises and values and 0 < _WIDE * min(values) < max(values):
            return {"title": {"text": f"{title} (logarithmic)"}, "type": "log", "dtick": 1}
        return {"title": {"text": title}}


def of_run(plan: Plan, result: Result) -> MetricWords:
    """Of a run: as its stages state it, else what judged."""
    task, base = str(plan.settings.get("task") or CLASSIFICATION), result.stage("base")
    stated = base or next(iter(result.stages), result.judged)
    return of(stated, task=task, base=base.value if base else None) if stated else MetricWords(task=task)


def of(
    stated: Stage | BaseFigures | Judged, *, task: str = CLASSIFICATION, base: float | None = None
) -> MetricWords:
    """Of whatever states a metric."""
    return MetricWords(stated.metric, stated.higher_is_better, stated.unit, base, task)
