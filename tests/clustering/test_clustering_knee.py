"""Kneedle: agreement with the paper, with kneed and with a twin; fallbacks are recorded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kneed import KneeLocator

from coprune.clustering.knee import find_knee

VARIANTS = [("interpolate", 2), ("polynomial", 2), ("polynomial", 6)]
NAMES = {"interpolate": "interp1d", "polynomial": "polynomial"}


def kneedle_loop(x, y, sensitivity, degree=None):
    """Satopää et al. 2011, section III: smooth, normalise, difference curve, threshold."""
    if degree is not None:
        y = np.polyval(np.polyfit(x, y, degree), x)
    xn = (x - x.min()) / (x.max() - x.min())
    yn = (y - y.min()) / (y.max() - y.min())
    difference = yn - xn
    step = np.diff(xn).mean()
    threshold, candidate = None, None
    for i in range(1, len(x) - 1):
        if difference[i] >= difference[i - 1] and difference[i] >= difference[i + 1]:
            threshold, candidate = difference[i] - sensitivity * step, x[i]
        if difference[i] <= difference[i - 1] and difference[i] <= difference[i + 1]:
            threshold = None  # a local minimum starts anew
        if threshold is not None and difference[i + 1] < threshold:
            return candidate
    return None


def saturating(n=40, rate=6.0):
    k = np.arange(2, 2 + n)
    return k, 1 - np.exp(-rate * (k - 2) / n)


def test_the_papers_own_example():
    # Satopää et al. 2011, figure 2: y = −1/(x + 0.1) + 5 at ten points from 0 to 1, knee at 0.22.
    x = np.arange(10)
    knee = find_knee(list(x), list(-1 / (x / 9 + 0.1) + 5), units=11, fit="interpolate")
    assert knee.k == 2
    assert knee.fallback is None


@pytest.mark.parametrize(("fit", "degree"), VARIANTS)
@pytest.mark.parametrize("rate", [3.0, 6.0, 12.0])
def test_published_variants_agree_with_kneed_and_with_the_twin(fit, degree, rate):
    k, y = saturating(rate=rate)
    knee = find_knee(k.tolist(), y.tolist(), units=50, fit=fit, degree=degree)
    plain = KneeLocator(
        k,
        y,
        S=1.0,
        curve="concave",
        direction="increasing",
        interp_method=NAMES[fit],
        polynomial_degree=degree,
    )
    assert knee.fallback is None
    assert knee.k == plain.knee
    assert knee.k == kneedle_loop(k.astype(float), y, 1.0, None if fit == "interpolate" else degree)


def test_the_rule_names_the_variant():
    k, y = saturating()
    assert find_knee(k.tolist(), y.tolist(), units=50, fit="interpolate").rule == "kneedle, interpolated, S=1"
    named = find_knee(k.tolist(), y.tolist(), units=50, fit="polynomial", degree=6, sensitivity=0.5).rule
    assert named == "kneedle, polynomial of degree 6, S=0.5"


@pytest.mark.parametrize(("fit", "degree"), VARIANTS)
@pytest.mark.parametrize(
    ("k", "values", "word"),
    [
        ([], [], "points"),
        ([2], [0.5], "points"),
        ([2, 3], [0.1, 0.9], "points"),
        (range(2, 20), [0.7] * 18, "flat"),
    ],
)
def test_a_curve_without_a_knee_keeps_all_units_and_says_so(fit, degree, k, values, word):
    knee = find_knee(list(k), list(values), units=21, fit=fit, degree=degree)
    assert knee.k == 21
    assert word in knee.fallback


@pytest.mark.parametrize(("fit", "degree"), VARIANTS)
@pytest.mark.parametrize("shape", ["convex", "falling"])
def test_a_convex_or_falling_curve_has_no_knee(fit, degree, shape):
    # Once a bug: kneed counts the ends of the difference curve as local maxima, so a convex
    # curve has its "knee" at the first k = 2, with no fallback recorded, and nearly every unit would go.
    # A falling curve passes the test for flatness (line 55). The docstring: "a curve that does not
    # rise, all units stay".
    values = [(i / 17) ** 3 if shape == "convex" else 1 - i / 17 for i in range(18)]
    knee = find_knee(list(range(2, 20)), values, units=21, fit=fit, degree=degree)
    assert (knee.k, knee.fallback is not None) == (21, True)


def test_a_concave_curve_that_kneedle_refuses_takes_the_point_highest_above_the_chord():
    # So insensitive that the threshold lies below the whole difference curve.
    k, y = saturating()
    knee = find_knee(k.tolist(), y.tolist(), units=50, fit="interpolate", sensitivity=100.0)
    chord = y[0] + (y[-1] - y[0]) * (k - k[0]) / (k[-1] - k[0])
    assert knee.k == k[int(np.argmax(y - chord))]
    assert "chord" in knee.fallback


def test_three_points_are_enough_even_for_a_high_degree():
    # Degree 6 through three points has no unique answer; the degree must be lowered.
    knee = find_knee([2, 3, 4], [0.0, 0.9, 1.0], units=5, fit="polynomial", degree=6)
    assert 2 <= knee.k <= 5


@pytest.mark.parametrize(("fit", "degree"), VARIANTS)
@given(values=st.lists(st.floats(-1, 1), max_size=20))
def test_any_curve_has_an_answer_among_its_k_or_all(fit, degree, values):
    k = list(range(2, 2 + len(values)))
    knee = find_knee(k, values, units=len(values) + 2, fit=fit, degree=degree)
    assert knee.k in {*k, len(values) + 2}
    assert knee.fallback is not None or knee.k in k
