"""Distances of many classes: float32 against float64, near twins, symmetric tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.clustering import distances as module
from coprune.clustering.distances import Gaussians, exact_work, profile_distances
from coprune.statistics.moments import Moments
from profiles import profiles

EPS = 1e-6


def twins(moments, *, by, seed=0):
    """The moments, and once more each unit with its means off by a part of ``by``."""
    noise = torch.randn(moments.mean.shape, generator=torch.Generator().manual_seed(seed)).double()
    return Moments(
        moments.count,
        torch.cat([moments.mean, moments.mean * (1 + by * noise)], 1),
        torch.cat([moments.m2, moments.m2], 1),
    )


def brute(moments):
    rows = profiles(moments, relative_eps=EPS)
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def off_diagonal(values):
    return values[~torch.eye(len(values), dtype=torch.bool)]


@pytest.mark.parametrize("values", [1, 3000, 1 << 19])
@given(seed=st.integers(0, 10_000), cells=st.integers(1, 3))
def test_float32_is_right_to_a_ten_thousandth(values, seed, cells):
    moments = tiny.moments(seed, units=9, cells=cells, classes=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE_VALUES", values)
        found = profile_distances(moments, relative_eps=EPS, single=True)
    wanted = brute(moments)
    assert float(off_diagonal((found - wanted).abs() / wanted).max()) < 1e-4


def test_float32_of_many_classes_is_right_to_a_millionth():
    moments = tiny.moments(1, units=40, cells=1, classes=120)
    found, wanted = profile_distances(moments, relative_eps=EPS, single=True), brute(moments)
    assert float(off_diagonal((found - wanted).abs() / wanted).max()) < 1e-6


@pytest.mark.parametrize("by", [1e-1, 3e-2, 1e-2, 1e-4, 1e-6, 1e-8])
def test_near_twins_are_told_apart_in_float32_too(by):
    moments = twins(tiny.moments(2, units=12, cells=1, classes=30), by=by)
    found, wanted = profile_distances(moments, relative_eps=EPS, single=True), brute(moments)
    assert float(off_diagonal((found - wanted).abs() / wanted).max()) < 1e-4
    assert (off_diagonal(found) > 0).all()


def test_means_far_apart_in_proportion_to_the_spread_are_subtracted_before_they_are_rounded():
    # Classes 0 and 1 differ by one standard deviation of 1e-3 and lie 10 from the others.
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(6, 5, 1, generator=generator, dtype=torch.float64)
    mean[:2] += 10
    mean[1] = mean[0] + 1e-3 * torch.rand(5, 1, generator=generator, dtype=torch.float64)
    moments = Moments(torch.full((6,), 11.0).double(), mean, torch.full((6, 5, 1), 1e-5).double())
    found = profile_distances(moments, relative_eps=1e-9, single=True)
    rows = profiles(moments, relative_eps=1e-9)
    wanted = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(off_diagonal((found - wanted).abs() / wanted).max()) < 1e-4


@given(seed=st.integers(0, 10_000))
def test_exact_duplicates_are_at_distance_zero_in_float32_and_others_are_not(seed):
    plain = tiny.moments(seed)
    copies = torch.tensor([0, 1, 2, 3, 4, 5, 2, 5, 5])
    doubled = Moments(plain.count, plain.mean[:, copies], plain.m2[:, copies])
    found = profile_distances(doubled, relative_eps=EPS, single=True)
    assert torch.equal(found == 0, copies.unsqueeze(0) == copies.unsqueeze(1))


def test_more_units_than_a_panel(monkeypatch):
    moments = tiny.moments(4, units=23, classes=5)
    wanted = profile_distances(moments, relative_eps=EPS)
    monkeypatch.setattr(module, "_PANEL", 7)
    monkeypatch.setattr(module, "_ROWS", 10)
    monkeypatch.setattr(module, "_FLUSH", 2)
    for single in (False, True):
        found = profile_distances(moments, relative_eps=EPS, single=single)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)


def test_work_decides_which_float(monkeypatch):
    moments, used = tiny.moments(0), []

    def squared(seen, dtype):
        used.append(dtype)
        return torch.zeros(6, 6), torch.zeros(6, 6, dtype=torch.bool)

    monkeypatch.setattr(module, "_squared", squared)
    profile_distances(moments, relative_eps=EPS)
    monkeypatch.setattr(module, "SINGLE_WORK", exact_work(moments))
    profile_distances(moments, relative_eps=EPS)
    profile_distances(moments, relative_eps=1e-300)  # of variances that float32 does not have
    assert used == [torch.float64, torch.float32, torch.float64]


def test_rows_hold_no_more_than_a_tile(monkeypatch):
    monkeypatch.setattr(module, "TILE_VALUES", 500)
    monkeypatch.setattr(module, "_ROWS", 1)
    seen = Gaussians.of(tiny.moments(0, classes=30), relative_eps=EPS)
    sizes = [rows.numel() for rows in module._rows(seen, torch.float64)]
    assert max(sizes) <= 500
    # Half of the tiles: 6 classes a side and 18 values a pair, 15 of 30 / 5 … and no pair twice but in them.
    assert sum(sizes) < 0.62 * 30 * 30 * 18
