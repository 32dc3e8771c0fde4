"""Jeffries–Matusita distance and the streamed profile distances against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.clustering import distances as module
from coprune.clustering.distances import floor_variance, profile_distances
from coprune.statistics.moments import Moments
from profiles import class_pairs, profiles, separability

EPS = 1e-6


def variance_loop(moments, eps):
    """Sample variance, never below eps times the unit's mean square (over classes by count, over cells)."""
    count, mean, m2 = (t.numpy() for t in (moments.count, moments.mean, moments.m2))
    classes, units, cells = mean.shape
    variance = np.zeros_like(mean)
    for u in range(units):
        square = 0.0
        for c in range(classes):
            for g in range(cells):
                variance[c, u, g] = m2[c, u, g] / max(count[c] - 1, 1)
                square += (variance[c, u, g] + mean[c, u, g] ** 2) * count[c] / count.sum() / cells
        floor = eps * (square if square > 0 else 1)
        for c in range(classes):
            for g in range(cells):
                variance[c, u, g] = max(variance[c, u, g], floor)
    return variance


def profile_loop(moments, eps):
    """JM of every unit, pair and cell, formula by formula; a row a unit."""
    variance, mean = variance_loop(moments, eps), moments.mean.numpy()
    classes, units, cells = mean.shape
    rows = []
    for u in range(units):
        row = []
        for p in range(classes):
            for q in range(p + 1, classes):
                for g in range(cells):
                    vp, vq = variance[p, u, g], variance[q, u, g]
                    b = 0.25 * (mean[p, u, g] - mean[q, u, g]) ** 2 / (vp + vq)
                    b += 0.5 * math.log((vp + vq) / (2 * math.sqrt(vp) * math.sqrt(vq)))
                    row.append(2 * (1 - math.exp(-b)))
        rows.append(row)
    return np.array(rows)


def distance_loop(rows):
    """Euclidean distances, pair by pair."""
    return np.array(
        [[math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True))) for y in rows] for x in rows]
    )


def two_classes(mean_p, mean_q, var_p, var_q):
    mean = torch.tensor([mean_p, mean_q], dtype=torch.float64).view(2, 1, 1)
    variance = torch.tensor([var_p, var_q], dtype=torch.float64).view(2, 1, 1)
    return float(separability(mean, variance, class_pairs(2)))


def test_one_pair_by_hand():
    assert two_classes(0, 2, 1, 1) == pytest.approx(2 * (1 - math.exp(-0.5)), abs=1e-15)  # B = ¼·4/2
    # Equal means, σ² 1 and 4: B = ½ ln(5/4), so e^−B = sqrt(4/5).
    assert two_classes(3, 3, 1, 4) == pytest.approx(2 * (1 - math.sqrt(0.8)), abs=1e-15)
    assert two_classes(1, 1, 2, 2) == 0
    assert two_classes(0, 1e6, 1e-6, 1e-6) == 2


def test_tiny_variances_do_not_underflow():
    # σp²·σq² = 1e-400 is 0 in float64; the logarithm of the product must not be taken.
    assert two_classes(0, 0, 1e-200, 4e-200) == pytest.approx(2 * (1 - math.sqrt(0.8)), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_profiles_equal_a_plain_loop(seed):
    found = profiles(tiny.moments(seed), relative_eps=EPS).numpy()
    np.testing.assert_allclose(
        np.sort(found, 1), np.sort(profile_loop(tiny.moments(seed), EPS), 1), atol=1e-9
    )


def test_profiles_are_pair_by_pair_and_cell_by_cell():
    found = profiles(tiny.moments(7), relative_eps=EPS).numpy()
    np.testing.assert_allclose(found, profile_loop(tiny.moments(7), EPS), atol=1e-9)


def test_variance_floor_is_relative_to_the_units_own_scale():
    moments = tiny.moments(3)
    np.testing.assert_allclose(
        floor_variance(moments, relative_eps=EPS).numpy(), variance_loop(moments, EPS), rtol=1e-12
    )
    # A unit's unit of measurement does not matter: scaling its activations leaves its profile alone,
    # also where the floor decides (unit 0 has a class that never varies).
    scaled = Moments(moments.count, moments.mean * 1e-4, moments.m2 * 1e-8)
    np.testing.assert_allclose(
        profiles(scaled, relative_eps=EPS).numpy(), profiles(moments, relative_eps=EPS).numpy(), atol=1e-9
    )


def test_a_dead_unit_separates_nothing():
    moments = tiny.moments(4)
    moments.mean[:, 2] = 0
    moments.m2[:, 2] = 0
    assert not profiles(moments, relative_eps=EPS)[2].any()
    assert torch.isfinite(profile_distances(moments, relative_eps=EPS)).all()


@given(
    seed=st.integers(0, 10_000), units=st.integers(2, 9), cells=st.integers(1, 4), classes=st.integers(2, 6)
)
def test_streamed_distances_equal_brute_force(seed, units, cells, classes):
    moments = tiny.moments(seed, units=units, cells=cells, classes=classes)
    wanted = distance_loop(profile_loop(moments, EPS))
    np.testing.assert_allclose(profile_distances(moments, relative_eps=EPS).numpy(), wanted, atol=1e-9)


@pytest.mark.parametrize("values", [1, 18, 19, 80, 10_000])
def test_the_size_of_a_block_does_not_matter(monkeypatch, values):
    # 6 units × 3 cells are 18 values a pair: tiles of one class by one, one, one, two, all six.
    moments = tiny.moments(11, classes=6)
    wanted = distance_loop(profile_loop(moments, EPS))
    monkeypatch.setattr(module, "TILE_VALUES", values)
    np.testing.assert_allclose(profile_distances(moments, relative_eps=EPS).numpy(), wanted, atol=1e-9)


@given(seed=st.integers(0, 10_000), block=st.sampled_from([1, 50, 8_000_000]))
def test_exact_duplicates_are_at_distance_zero_and_others_are_not(seed, block):
    plain = tiny.moments(seed)
    copies = torch.tensor([0, 1, 2, 3, 4, 5, 2, 5, 5])
    doubled = Moments(plain.count, plain.mean[:, copies], plain.m2[:, copies])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE_VALUES", block)
        distance = profile_distances(doubled, relative_eps=EPS)
    same = copies.unsqueeze(0) == copies.unsqueeze(1)
    assert torch.equal(distance == 0, same)


def test_duplicates_stay_at_zero_where_the_gram_matrix_rounds():
    # Sums this long differ in the last digit even for equal columns; 1e-14 there would be 1e-7 apart.
    plain, copies = tiny.moments(0, units=61, classes=10, cells=7), torch.arange(91) % 61
    doubled = Moments(plain.count, plain.mean[:, copies], plain.m2[:, copies])
    same = copies.unsqueeze(0) == copies.unsqueeze(1)
    assert torch.equal(profile_distances(doubled, relative_eps=EPS) == 0, same)


def test_distances_are_a_symmetric_matrix_with_zero_diagonal():
    distance = profile_distances(tiny.moments(5), relative_eps=EPS)
    assert torch.equal(distance, distance.T)
    assert not distance.diagonal().any()
    assert distance.dtype == torch.float64


@given(seed=st.integers(0, 10_000), order=st.permutations(range(6)))
def test_permuting_units_permutes_the_distances(seed, order):
    moments, index = tiny.moments(seed), torch.tensor(order)
    plain = profile_distances(moments, relative_eps=EPS)
    moved = profile_distances(
        Moments(moments.count, moments.mean[:, index], moments.m2[:, index]), relative_eps=EPS
    )
    np.testing.assert_allclose(moved.numpy(), plain[index][:, index].numpy(), atol=1e-9)


@given(seed=st.integers(0, 10_000), order=st.permutations(range(4)))
def test_permuting_classes_changes_nothing(seed, order):
    moments, index = tiny.moments(seed), torch.tensor(order)
    moved = Moments(moments.count[index], moments.mean[index], moments.m2[index])
    np.testing.assert_allclose(
        profile_distances(moved, relative_eps=EPS).numpy(),
        profile_distances(moments, relative_eps=EPS).numpy(),
        atol=1e-9,
    )


@given(seed=st.integers(0, 10_000))
def test_separability_stays_between_0_and_2(seed):
    found = profiles(tiny.moments(seed), relative_eps=EPS)
    assert found.min() >= 0
    assert found.max() <= 2
