"""The search for a budget as the page shows it: what every size that was tried lost."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from coprune.files import Figure
from coprune.plan import Plan
from coprune.report import formatting as f
from coprune.report.metric import MetricWords, of_run
from coprune.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LIMIT = re.compile(r"max_drop=(\d+(?:\.\d*)?(?:e-?\d+)?)(?![\d.%])")


class Probe(BaseModel):
    """One size that was tried.

    Attributes:
        macs: share of the MACs that it keeps.
        value: of the metric, on the judging samples; a share is a fraction.
        ok: whether its loss is allowed.
        chosen: whether it is the one that was taken.
        drop: lost against the unpruned model, in points or the metric's unit; None in runs before the
            interval was taken.
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


@dataclass(frozen=True)
class Search:
    """All sizes that were tried, in the order in which they were.

    Attributes:
        metric: what judged.
        limit: the allowed drop in points or the metric's unit, None when the budget names none.
        base: value of the unpruned model on the judging samples, None when no probe tells.
    """

    probes: tuple[Probe, ...]
    metric: MetricWords
    limit: float | None
    base: float | None

    @property
    def far(self) -> list[Probe]:
        """Those so far beyond the limit that they would press everything else into a line."""
        if self.base is None or self.limit is None:
            return []
        limit = max(5 * self.limit, 2 if self.metric.unit == "%" else 0.02 * abs(self.base))
        return [p for p in self.probes if self.metric.loss_of(p.value, self.base) > limit]

    @property
    def views(self) -> tuple[str, ...]:
        """What can be shown: where probes lie far below, what is near the limit, and all."""
        return ("near", "all") if self.far else ("",) if self.probes else ()

    def span(self, probe: Probe) -> tuple[float, float, float]:
        """Least, found and greatest value as they are drawn; the interval of the loss, mirrored."""
        found, drop = self.metric.scale * probe.value, probe.drop or 0
        least, most = sorted(found + self.metric.sign * (drop - x) for x in probe.interval or (drop, drop))
        return least, found, most

    def lost(self, probe: Probe) -> str:
        """What was lost, with its interval where it is told."""
        if probe.drop is not None:
            return self.metric.lost(probe.drop, probe.interval)
        return "–" if self.base is None else self.metric.lost(self.metric.loss_of(probe.value, self.base))

    def verdict(self, probe: Probe) -> str:
        """What became of it."""
        if probe.chosen:
            return "chosen" if probe.ok else f"chosen, beyond the allowed {self.metric.drop}"
        return self.good if probe.ok else "refused"

    @property
    def good(self) -> str:
        """What a probe is whose loss is allowed."""
        return "tried" if self.limit is None else f"within the allowed {self.metric.drop}"


def read(plan: Plan, result: Result) -> Search:
    """The search that a result holds; entries that are no probes are left out."""
    probes: list[Probe] = []
    for given in result.search:
        with suppress(ValidationError):
            probes.append(Probe.model_validate(given))
    metric, asked, limit = of_run(plan, result), _LIMIT.search(plan.budget), None
    if "max_drop=" in plan.budget and result.judged and result.judged.allowed is not None:
        limit = result.judged.allowed  # of a relative limit too
    elif asked:
        limit = float(asked[1])
    # A drop tells the base it is counted from; else it is what was measured with everything kept.
    told = [p.value + metric.sign * p.drop / metric.scale for p in probes if p.drop is not None]
    whole = [p.value for p in probes if p.macs >= 1 - 1e-9]
    return Search(tuple(probes), metric, limit, next(iter(told + whole), None))


def figure(search: Search, *, view: str) -> go.Figure:
    """The metric over MACs of every probe, the allowed drop, the chosen one.

    Args:
        search: with at least one probe.
        view: ``near`` the limit, or everything.
    """
    from coprune.report.theme import ACCENT, INK, KEPT, LINE, figure, line, points, rule, whiskers

    order, metric = sorted(search.probes, key=lambda p: p.macs), search.metric
    scale = metric.scale
    traces = [line([100 * p.macs for p in order], [scale * p.value for p in order], LINE)]
    for some, name, color, mark in (
        ([p for p in order if p.ok], search.good, KEPT, {"symbol": "circle", "size": 12}),
        ([p for p in order if not p.ok], "refused", ACCENT, {"symbol": "x", "size": 12}),
        ([p for p in order if p.chosen], "chosen", INK, {"symbol": "circle-open", "size": 22}),
    ):
        if not some:
            continue
        about = [
            f"{f.percent(p.macs)} of the MACs<br>{metric.short} {metric.figure(p.value)}"
            f"<br>{metric.loss()}: {search.lost(p)}<br>{search.verdict(p)}"
            for p in some
        ]
        x, y = [100 * p.macs for p in some], [scale * p.value for p in some]
        bounds = whiskers([search.span(p) for p in some], color) if any(p.interval for p in some) else None
        traces.append(points(x, y, about, color, cliponaxis=True, name=name, error_y=bounds, **mark))
    rules, near = [], [p for p in order if p not in search.far]
    ends = [end for p in near for end in search.span(p)]
    if search.base is not None:
        ends.append(scale * search.base)
    if search.base is not None and search.limit is not None:
        text = f"allowed {metric.drop}: {metric.of_loss(f'{search.limit:.4g}')}"
        ends.append(scale * search.base - metric.sign * search.limit)
        rules.append(rule(ends[-1], text, ACCENT))
    y_axis = metric.axis([])
    if view == "near":
        room = 0.08 * (max(ends) - min(ends)) or 1
        y_axis["range"] = [min(ends) - room, max(ends) + room]
    x_axis = {"title": {"text": "MACs left, % of the base"}, "rangemode": "tozero"}
    return figure(traces, height=380, rules=rules, xaxis=x_axis, yaxis=y_axis, showlegend=True)
