"""Budgets that are found by trying: a largest loss, a latency, or the knee of the recovered curve.

Every model that is tried is cut, recovered with one part of the calibration samples and judged on the
other part, which neither the selection nor the solver has seen. Held-out samples are never read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from coprune.clustering.knee import find_knee
from coprune.measure.intervals import Loss
from coprune.plan import GroupDecision

PROBES = 8
"""Models tried for a largest loss: the smallest, then halvings of the logarithm. Seven of those end within
3 % of the MACs where a fiftieth can stay."""

CONFIDENCE = 0.9
"""A model is accepted when its true loss is within the limit with this probability (one-sided). The
samples judge up to eight models, and the smallest accepted one is taken; simulated searches (test of
this module) end above the limit in less than one of ten."""

KNEE_SHARES = (0.8, 0.62, 0.48, 0.37, 0.28, 0.21, 0.15)

Decide = Callable[[float], tuple[float, tuple[GroupDecision, ...]]]
Judge = Callable[[tuple[GroupDecision, ...]], tuple[float, Loss]]
"""Decisions → the recovered model's figure, and what it loses against the unpruned one, on judging
samples."""


@dataclass(frozen=True)
class Probe:
    """One model that was tried.

    Attributes:
        macs: its share of the MACs.
        value: the metric's figure on the judging samples.
        drop: what is lost there against the unpruned model, in the metric's unit (points of a share), in
            pairs.
        low, high: 80 % interval of the true loss; it is below ``high`` with ``CONFIDENCE``.
        ok: whether the loss is allowed with the stated confidence.
        chosen: whether it is the one that was taken.
    """

    macs: float
    value: float
    drop: float
    low: float
    high: float
    ok: bool
    chosen: bool = False

    def as_json(self) -> dict[str, float | bool]:
        """For ``result.json``."""
        places = {"macs": 6, "drop": 4, "low": 4, "high": 4}
        return {k: round(v, places[k]) if k in places else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Found:
    """The model that was taken, every probe in the order it was made, and the loss that was allowed."""

    decisions: tuple[GroupDecision, ...]
    probes: tuple[Probe, ...]
    allowed: float | None = None


_Tried = tuple[Probe, tuple[GroupDecision, ...]]


def _unpruned(base: float, decide: Decide) -> _Tried:
    return Probe(1.0, base, 0.0, 0.0, 0.0, ok=True), decide(1.0)[1]


def _tried(share: float, limit: float, decide: Decide, judge: Judge) -> _Tried:
    macs, decisions = decide(share)
    value, loss = judge(decisions)
    return Probe(macs, value, *loss, ok=loss.within(limit)), decisions


def _found(tried: Sequence[_Tried], at: int, allowed: float | None = None) -> Found:
    """One of the models, with its probe marked."""
    probes = (replace(probe, chosen=i == at) for i, (probe, _) in enumerate(tried))
    return Found(tried[at][1], tuple(probes), allowed)


def search_drop(
    least: float, base: float, max_drop: float, *, decide: Decide, judge: Judge, probes: int = PROBES
) -> Found:
    """The smallest model that keeps the loss within a limit: bisection of the logarithm of the MACs.

    A figure need not fall steadily, so only a model that was really tried is ever returned: the
    smallest accepted one. Keeping everything loses nothing.

    Args:
        least: the smallest share of MACs that the groups allow.
        base: the unpruned model's figure on the judging samples.
        max_drop: allowed loss, in the metric's unit.
        decide: share of MACs → the share really reached, and the decisions for it.
        judge: see :data:`Judge`.
        probes: how many models to try.
    """
    tried, chosen = [_unpruned(base, decide)], 0
    low, high = math.log(least), 0.0
    for step in range(probes):
        # The smallest model first: when it is good enough, there is nothing to search.
        target = low if step == 0 else (low + high) / 2
        # exp(log(least)) may round to just below the least that can be reached.
        tried.append(_tried(max(least, math.exp(target)), max_drop, decide, judge))
        if not tried[-1][0].ok:
            low = target
            continue
        high, chosen = target, len(tried) - 1
        if step == 0:
            break
    return _found(tried, chosen, max_drop)


def search_knee(
    least: float, base: float, *, decide: Decide, judge: Judge, higher_is_better: bool = True
) -> tuple[Found, str]:
    """The knee of the recovered figure over MACs (Kneedle; Satopää et al. 2011).

    Args:
        least: the smallest share of MACs that the groups allow.
        base, decide, judge: as for :func:`search_drop`.
        higher_is_better: direction of the figure.

    Returns:
        What was found, and the rule in words.
    """
    tried = [_unpruned(base, decide)]
    # Where less than the first step can go, all that can is the only step.
    for share in [s for s in KNEE_SHARES if s >= least] or [least]:
        probe, decisions = _tried(share, math.inf, decide, judge)
        tried.append((replace(probe, ok=True), decisions))
    probes = [probe for probe, _ in tried]
    order = sorted(range(len(probes)), key=lambda i: probes[i].macs)
    sign = 1 if higher_is_better else -1
    # In thousandths of the MACs, as the knee of a curve is a whole number of something.
    knee = find_knee(
        [round(1000 * probes[i].macs) for i in order],
        torch.tensor([sign * probes[i].value for i in order]).cummax(0).values.tolist(),
        units=1000,
        fit="interpolate",
    )
    if probes[order[0]].drop <= 0:
        # Nothing is lost down to there: there is no knee to stop at.
        return _found(tried, order[0]), "the smallest tried loses nothing"
    at = min(range(len(probes)), key=lambda i: abs(1000 * probes[i].macs - knee.k))
    return _found(tried, at), knee.fallback or knee.rule


def search_latency(
    least: float,
    limit_ms: float,
    *,
    decide: Decide,
    time_ms: Callable[[tuple[GroupDecision, ...]], float],
    probes: int = PROBES,
) -> tuple[tuple[GroupDecision, ...], float, float]:
    """The largest model that is fast enough: bisection of the share of MACs.

    Args:
        least: the smallest share that the groups allow.
        limit_ms: milliseconds of one sample.
        decide: share of MACs → the share really reached, and the decisions for it.
        time_ms: decisions → measured milliseconds of the cut model.
        probes: how many models to time.

    Returns:
        Decisions and milliseconds of the largest model that is fast enough; or of the smallest, when
        not even that is, and the milliseconds of the smallest.
    """

    def timed(share: float) -> tuple[tuple[GroupDecision, ...], float]:
        _, decisions = decide(share)
        return decisions, time_ms(decisions)

    whole, ms = timed(1.0)
    if ms <= limit_ms:
        return whole, ms, ms
    best, found = timed(least)
    smallest, low, high = found, least, 1.0
    for _ in range(probes if smallest <= limit_ms else 0):
        middle = (low + high) / 2
        decisions, ms = timed(middle)
        if ms <= limit_ms:
            best, found, low = decisions, ms, middle
        else:
            high = middle
    return best, found, smallest
