"""The search for a budget as the page shows it: accuracy of every size that was tried."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from coprune.files import Figure
from coprune.plan import Plan
from coprune.report import formatting as f
from coprune.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LIMIT = re.compile(r"max_drop=(\d+(?:\.\d*)?(?:e-?\d+)?)")


class Probe(BaseModel):
    """One size that was tried.

    Attributes:
        macs: share of the MACs that it keeps.
        value: its accuracy on the judging samples, a fraction.
        ok: whether its loss is allowed.
        chosen: whether it is the one that was taken.
        drop: points lost against the unpruned model; None in runs before the interval was taken.
        low, high: interval of the true loss.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    macs: Figure
    value: Figure
    ok: bool = False
    chosen: bool = False
    drop: Figure | None = None
    low: Figure | None = None
    high: Figure | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Least and greatest loss; None where they are not told, or do not hold what was found."""
        if self.drop is None or self.low is None or self.high is None:
            return None
        return (self.low, self.high) if self.low <= self.drop <= self.high else None

    @property
    def span(self) -> tuple[float, float, float]:
        """Least, found and greatest accuracy in per cent; the interval of the loss, mirrored."""
        low, high = self.interval or (self.drop or 0, self.drop or 0)
        found, drop = 100 * self.value, self.drop or 0
        return found + drop - high, found, found + drop - low


@dataclass(frozen=True)
class Search:
    """All sizes that were tried, in the order in which they were.

    Attributes:
        limit: the allowed drop in points, None when the budget names none.
        base: accuracy of the unpruned model on the judging samples, None when no probe tells.
    """

    probes: tuple[Probe, ...]
    limit: float | None
    base: float | None

    @property
    def far(self) -> list[Probe]:
        """Those so far below the limit that they would press everything else into a line."""
        if self.base is None or self.limit is None:
            return []
        return [p for p in self.probes if p.value < self.base - max(5 * self.limit, 2) / 100]

    @property
    def views(self) -> tuple[str, ...]:
        """What can be shown: where probes lie far below, what is near the limit, and all."""
        return ("near", "all") if self.far else ("",) if self.probes else ()

    def lost(self, probe: Probe) -> str:
        """Points lost, with their interval where it is told."""
        if probe.drop is not None:
            return f.lost(probe.drop, *(probe.interval or ()))
        return "–" if self.base is None else f.lost(100 * (self.base - probe.value))

    def verdict(self, probe: Probe) -> str:
        """What became of it."""
        if probe.chosen:
            return "chosen" if probe.ok else "chosen, beyond the allowed drop"
        if probe.ok:
            return "within the allowed drop" if self.limit is not None else "tried"  # a knee allows no drop
        return "refused"


def read(plan: Plan, result: Result) -> Search:
    """The search that a result holds; entries that are no probes are left out."""
    probes = tuple(probe for given in result.search if (probe := _probe(given)))
    limit = _LIMIT.search(plan.budget)
    # A drop tells the base it is counted from; else it is what was measured with everything kept.
    told = (p.value + p.drop / 100 for p in probes if p.drop is not None)
    whole = (p.value for p in probes if p.macs >= 1 - 1e-9)
    return Search(probes, float(limit[1]) if limit else None, next(told, next(whole, None)))


def _probe(given: dict[str, Any]) -> Probe | None:
    try:
        return Probe.model_validate(given)
    except ValidationError:
        return None


def figure(search: Search, *, view: str) -> go.Figure:
    """Accuracy over MACs of every probe, the allowed drop, the chosen one.

    Args:
        search: with at least one probe.
        view: ``near`` the limit, or everything.
    """
    from coprune.report.theme import ACCENT, INK, KEPT, LINE, Rule, figure, line, points, whiskers

    order = sorted(search.probes, key=lambda p: p.macs)
    traces = [line([100 * p.macs for p in order], [100 * p.value for p in order], LINE)]
    good = "tried" if search.limit is None else "within the allowed drop"
    for some, name, color, symbol in (
        ([p for p in order if p.ok], good, KEPT, "circle"),
        ([p for p in order if not p.ok], "refused", ACCENT, "x"),
        ([p for p in order if p.chosen], "chosen", INK, "circle-open"),
    ):
        if not some:
            continue
        about = [
            f"{f.percent(p.macs)} of the MACs<br>accuracy {f.percent(p.value, 2)}"
            f"<br>points lost: {search.lost(p)}<br>{search.verdict(p)}"
            for p in some
        ]
        more: dict[str, Any] = {
            "symbol": symbol,
            "size": 22 if name == "chosen" else 12,
            "cliponaxis": True,
            "name": name,
        }
        if any(p.interval for p in some):
            more["error_y"] = whiskers([p.span for p in some], color)
        traces.append(
            points([100 * p.macs for p in some], [100 * p.value for p in some], about, color, **more)
        )
    rules, near = [], [p for p in order if p not in search.far]
    ends = [end for p in near for end in p.span]
    if search.base is not None:
        ends.append(100 * search.base)
    if search.base is not None and search.limit is not None:
        text = f"allowed drop: {search.limit:.4g} point{'' if search.limit == 1 else 's'}"
        rules.append(Rule(100 * search.base - search.limit, text, ACCENT))
        ends.append(rules[0].at)
    y_axis: dict[str, Any] = {"title": {"text": "accuracy, %"}}
    if view == "near":
        room = 0.08 * (max(ends) - min(ends)) or 1
        y_axis["range"] = [min(ends) - room, max(ends) + room]
    x_axis = {"title": {"text": "MACs left, % of the base"}, "rangemode": "tozero"}
    return figure(traces, height=380, rules=rules, xaxis=x_axis, yaxis=y_axis, showlegend=True)
