"""Budgets that are found by trying: a largest loss, a latency, or the knee of the recovered curve.

Every model that is tried is cut, recovered with one part of the calibration samples and judged on the
other part, which neither the selection nor the solver has seen. Held-out samples are never read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from scipy.optimize import brentq
from torch import Tensor

from coprune.clustering.knee import find_knee
from coprune.plan import GroupDecision

PROBES = 8
"""Models tried for a largest loss: the smallest, then halvings of the logarithm. Seven of those end within
3 % of the MACs where a fiftieth can stay."""

CONFIDENCE = 0.9
"""A model is accepted when its true loss is within the limit with this probability (one-sided). The
samples judge up to eight models, and the smallest accepted one is taken; simulated searches (test of
this module) end above the limit in less than one of ten."""

SURE = 1.2816
"""Normal quantile of ``CONFIDENCE``; the interval shown is the two-sided one, 80 %."""

KNEE_SHARES = (0.8, 0.62, 0.48, 0.37, 0.28, 0.21, 0.15)

Decide = Callable[[float], tuple[float, tuple[GroupDecision, ...]]]
Judge = Callable[[tuple[GroupDecision, ...]], Tensor]


@dataclass(frozen=True)
class Probe:
    """One model that was tried.

    Attributes:
        macs: its share of the MACs.
        value: its accuracy on the judging samples.
        drop: points lost there against the unpruned model, sample by sample.
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
    """The model that was taken, and every probe in the order it was made."""

    decisions: tuple[GroupDecision, ...]
    probes: tuple[Probe, ...]


class Loss(NamedTuple):
    """Points lost on judging samples, and both ends of an interval of the true loss."""

    found: float
    low: float
    high: float

    def within(self, limit: float) -> bool:
        """Whether at most ``limit`` points are lost, with the probability of the interval's end."""
        return self.high <= limit + 1e-9


def paired_drop(base: Tensor, pruned: Tensor, *, z: float = SURE) -> Loss:
    """Points lost on the same samples, and an interval of the true loss.

    Pairs agree on most samples, so the difference is known far better than either accuracy. The interval
    inverts Tango's score test (Statistics in Medicine 17, 1998, pp. 891-908): it holds what it promises
    where few samples differ, and none seen to differ is not certainty.

    Args:
        base, pruned: which samples are right, ``[N]`` bool.
        z: normal quantile of the ends.

    Returns:
        The loss, and its two-sided interval (80 % with ``SURE``).
    """
    lost, gained = int((base & ~pruned).sum()), int((pruned & ~base).sum())
    low, high = tango_interval(lost, gained, len(base), z=z)
    return Loss(100 * (lost - gained) / len(base), 100 * low, 100 * high)


def tango_interval(lost: int, gained: int, samples: int, *, z: float) -> tuple[float, float]:
    """Both ends of Tango's interval for the difference of two proportions seen in pairs.

    Args:
        lost, gained: pairs in which only the first, only the second is right.
        samples: all pairs.
        z: normal quantile.
    """
    seen = (lost - gained) / samples

    def score(delta: float) -> float:
        # Most likely share of gained pairs when the true difference is delta: Tango's equation 6.
        a, b = 2 * samples, (2 * samples - lost + gained) * delta - lost - gained
        c = -gained * delta * (1 - delta)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = samples * (2 * share + delta * (1 - delta))
        return samples * (seen - delta) / math.sqrt(max(variance, 1e-300))

    # The variance is positive strictly inside (−1, 1). When all pairs differ one way, that end is an end.
    edge = 1 - 1e-9
    low, high = -1.0, 1.0
    if score(-edge) > z and seen > -1:
        low = brentq(lambda delta: score(delta) - z, -edge, seen)
    if score(edge) < -z and seen < 1:
        high = brentq(lambda delta: score(delta) + z, seen, edge)
    return low, high


def least_provable(samples: int, *, z: float = SURE) -> float:
    """Points of the smallest limit that so many samples can show, when none of them is lost."""
    return 100 * tango_interval(0, 0, samples, z=z)[1]


def _unpruned(base: Tensor) -> Probe:
    return Probe(1.0, float(base.double().mean()), 0.0, 0.0, 0.0, ok=True)


def _probe(macs: float, base: Tensor, pruned: Tensor, limit: float, *, z: float) -> Probe:
    loss = paired_drop(base, pruned, z=z)
    return Probe(macs, float(pruned.double().mean()), *loss, ok=loss.within(limit))


def search_drop(
    least: float,
    base: Tensor,
    max_drop: float,
    *,
    decide: Decide,
    judge: Judge,
    probes: int = PROBES,
    z: float = SURE,
) -> Found:
    """The smallest model that keeps the loss within a limit: bisection of the logarithm of the MACs.

    Accuracy need not fall steadily, so only a model that was really tried is ever returned: the
    smallest accepted one. Keeping everything loses nothing.

    Args:
        least: the smallest share of MACs that the groups allow.
        base: which judging samples the unpruned model has right, ``[N]`` bool.
        max_drop: allowed loss in points.
        decide: share of MACs → the share really reached, and the decisions for it.
        judge: decisions → which judging samples the recovered model has right.
        probes: how many models to try.
        z: normal quantile of how sure a model must be within the limit.
    """
    models, tried, chosen = [decide(1.0)[1]], [_unpruned(base)], 0
    low, high = math.log(least), 0.0
    for step in range(probes):
        # The smallest model first: when it is good enough, there is nothing to search.
        target = low if step == 0 else (low + high) / 2
        # exp(log(least)) may round to just below the least that can be reached.
        reached, decisions = decide(max(least, math.exp(target)))
        models.append(decisions)
        tried.append(_probe(reached, base, judge(decisions), max_drop, z=z))
        if tried[-1].ok:
            high, chosen = target, len(tried) - 1
            if step == 0:
                break
        else:
            low = target
    return _found(models, tried, chosen)


def search_knee(
    least: float, base: Tensor, *, decide: Decide, judge: Judge, z: float = SURE
) -> tuple[Found, str]:
    """The knee of recovered accuracy over MACs (Kneedle; Satopää et al. 2011).

    Args:
        least: the smallest share of MACs that the groups allow.
        base: which judging samples the unpruned model has right, ``[N]`` bool.
        decide, judge: as for :func:`search_drop`.
        z: of the intervals.

    Returns:
        What was found, and the rule in words.
    """
    models, tried = [decide(1.0)[1]], [_unpruned(base)]
    # Where less than the first step can go, all that can is the only step.
    for share in [s for s in KNEE_SHARES if s >= least] or [least]:
        reached, decisions = decide(share)
        models.append(decisions)
        tried.append(replace(_probe(reached, base, judge(decisions), 100.0, z=z), ok=True))
    order = sorted(range(len(tried)), key=lambda i: tried[i].macs)
    # In thousandths of the MACs, as the knee of a curve is a whole number of something.
    knee = find_knee(
        [round(1000 * tried[i].macs) for i in order],
        torch.tensor([tried[i].value for i in order]).cummax(0).values.tolist(),
        units=1000,
        fit="interpolate",
    )
    at = min(range(len(tried)), key=lambda i: abs(1000 * tried[i].macs - knee.k))
    smallest = order[0]
    if tried[smallest].drop <= 0:
        # Nothing is lost down to there: there is no knee to stop at.
        return _found(models, tried, smallest), "the smallest tried loses nothing"
    return _found(models, tried, at), knee.fallback or knee.rule


def _found(models: list[tuple[GroupDecision, ...]], tried: list[Probe], at: int) -> Found:
    """One of the models, with its probe marked."""
    return Found(models[at], tuple(replace(probe, chosen=i == at) for i, probe in enumerate(tried)))


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
