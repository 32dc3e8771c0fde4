"""How sure a figure is: intervals of a value, and of what one network loses against another.

Pairs agree on most samples, so what is lost is known far better than either value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit  # scipy.stats would take half a second to import
from torch import Tensor

SURE = 1.2816
"""Normal quantile of 90 %, one-sided; as both ends of an interval, 80 %."""


class Loss(NamedTuple):
    """What is lost on judging samples, in points or the metric's unit, and an interval of the true loss."""

    found: float
    low: float
    high: float

    def within(self, limit: float) -> bool:
        """Whether at most ``limit`` is lost, with the probability of the interval's end."""
        return self.high <= limit + 1e-9


def wilson(share: float, samples: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a proportion (JASA 22, 1927, pp. 209-212), which holds at its ends too.

    Args:
        share: that was seen, in [0, 1].
        samples: that it was seen on.
        z: normal quantile; 1.96 is 95 % on two sides.
    """
    middle = share + z * z / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + (z / (2 * samples)) ** 2)
    whole = 1 + z * z / samples
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def paired_drop(base: Tensor, pruned: Tensor, *, z: float = SURE) -> Loss:
    """Points lost on the same samples, each right or wrong.

    The interval inverts Tango's score test (Statistics in Medicine 17, 1998, pp. 891-908): it holds what it
    promises where few samples differ, and none seen to differ is not certainty.

    Args:
        base, pruned: which samples are right, ``[N]`` bool.
        z: normal quantile of the ends.
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
    """Points of the smallest limit that so many right samples can show, when none of them is lost."""
    return 100 * tango_interval(0, 0, samples, z=z)[1]


def jackknife(sums: Tensor, figure: Callable[[Tensor], Tensor]) -> float:
    """Standard error of a figure of sums over samples (Efron & Stein, Annals of Statistics 9, 1981).

    Args:
        sums: of every sample, ``[N, S]``; of networks side by side, ``[N, networks, S]``.
        figure: sums over samples ``[…, S]`` → ``[…]``.
    """
    count = len(sums)
    if count < 2:
        return math.inf
    without = figure(sums.sum(0) - sums)
    return float(((without - without.mean()).square().sum() * (count - 1) / count).sqrt())


def around(found: float, error: float, count: int, *, z: float) -> tuple[float, float]:
    """Student's interval of a figure.

    Args:
        found: what was seen.
        error: its standard error.
        count: samples, or blocks of samples, that it comes from.
        z: normal quantile that is asked for.
    """
    if count < 2 or not math.isfinite(error):
        return -math.inf, math.inf
    wide = float(stdtrit(count - 1, ndtr(z))) * error
    return found - wide, found + wide


def error_of_mean(values: list[float]) -> float:
    """Standard error of the mean of some blocks' figures."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
