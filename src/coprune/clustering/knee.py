"""Where a curve stops rising: Kneedle (Satopää et al. 2011), from the ``kneed`` package.

The published variants on (k, MSS), all concave, increasing, S = 1: GB-AFS interpolates, CoSeP's
first version fits a polynomial of degree 2, CAHP one of degree 6.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from coprune.plan import Knee

Fit = Literal["interpolate", "polynomial"]


def find_knee(
    k: Sequence[int],
    values: Sequence[float],
    *,
    units: int,
    fit: Fit,
    degree: int = 2,
    sensitivity: float = 1.0,
) -> Knee:
    """The knee of a rising curve, or a recorded fallback; never nothing.

    Args:
        k: numbers of clusters, ascending.
        values: the curve at each k.
        units: size of the group, kept whole when the curve has no knee at all.
        fit: ``interpolate`` or ``polynomial``.
        degree: of the polynomial.
        sensitivity: Kneedle's S.

    Returns:
        The knee. Fallbacks, in this order: with fewer than three points, or a curve that does not
        rise, all units stay; where Kneedle finds no knee, the point highest above the chord from
        the first to the last point, which is what Kneedle's S → 0 tends to.
    """
    how = "interpolated" if fit == "interpolate" else f"polynomial of degree {degree}"
    rule = f"kneedle, {how}, S={sensitivity:g}"
    x, y = np.asarray(k, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if len(x) < 3:
        return Knee(k=units, rule=rule, fallback=f"only {len(x)} points on the curve; all units stay")
    if not y[-1] > y[0] or not y.max() > y.min():
        shape = "does not rise" if y.max() > y.min() else "is flat"
        return Knee(k=units, rule=rule, fallback=f"the curve {shape}; all units stay")
    from kneed import KneeLocator  # which imports matplotlib

    with warnings.catch_warnings():
        # kneed warns when there is no knee, and numpy when the polynomial is badly conditioned.
        warnings.simplefilter("ignore")
        # Concave and increasing, as it takes curves to be.
        smooth = "interp1d" if fit == "interpolate" else "polynomial"
        located = KneeLocator(x, y, S=sensitivity, interp_method=smooth, polynomial_degree=degree).knee
    # At its ends the curve meets the diagonal that Kneedle measures from, so a "knee" there (kneed
    # reports one for convex curves) is none.
    if located is not None and x[0] < located < x[-1]:
        return Knee(k=round(float(located)), rule=rule)
    chord = y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])
    above = y - chord
    if above.max() <= 0:
        return Knee(k=units, rule=rule, fallback="no knee: the curve is not concave; all units stay")
    best = int(above.argmax())
    return Knee(k=int(k[best]), rule=rule, fallback="no knee found; the point highest above the chord")
