"""Sketched distances keep their bound, and say so."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_cosep_method import profile_of, weights

import tiny
from coprune.clustering import distances_lowrank as sketch
from coprune.clustering.distances import exact_work, profile_distances
from coprune.clustering.distances_lowrank import sketched_distances
from coprune.methods.cosep import CoSePSettings
from coprune.methods.cosep.method import choose_group
from coprune.statistics.moments import Moments

EPS = 1e-6


def sketched(moments, tolerance):
    return sketched_distances(moments, relative_eps=EPS, tolerance=tolerance)


@pytest.mark.parametrize("tolerance", [0.3, 0.03, 0.003])
@given(seed=st.integers(0, 10_000), cells=st.integers(1, 3), classes=st.integers(2, 14))
def test_no_distance_is_further_off_than_the_bound_and_the_bound_is_kept(tolerance, seed, cells, classes):
    moments = tiny.moments(seed, units=7, cells=cells, classes=classes)
    found, wanted = sketched(moments, tolerance), profile_distances(moments, relative_eps=EPS)
    assert float((found.distance - wanted).abs().max()) <= found.bound + 1e-4
    assert found.bound_a_pair <= tolerance * np.sqrt(classes / (classes - 1)) * (1 + 1e-9)
    pairs = classes * (classes - 1) / 2
    assert found.bound == pytest.approx(found.bound_a_pair * np.sqrt(pairs * cells))
    assert torch.equal(found.distance, found.distance.T)
    assert not found.distance.diagonal().any()


def test_a_finer_tolerance_needs_more_columns_and_comes_nearer():
    moments = tiny.moments(5, units=20, cells=1, classes=90)
    wanted = profile_distances(moments, relative_eps=EPS)
    errors, ranks = [], []
    for tolerance in (0.3, 0.03, 0.003):
        found = sketched(moments, tolerance)
        errors.append(float((found.distance - wanted).abs().max()))
        ranks.append(found.rank)
    assert errors == sorted(errors, reverse=True)
    assert ranks == sorted(ranks)
    assert errors[-1] < 1e-3 * float(wanted.max())


def test_where_columns_do_not_suffice_the_bound_says_so(monkeypatch):
    moments = tiny.moments(5, units=8, cells=1, classes=40)
    monkeypatch.setattr(sketch, "MOST", 2)
    found, wanted = sketched(moments, 0.003), profile_distances(moments, relative_eps=EPS)
    assert found.bound_a_pair > 0.003
    assert float((found.distance - wanted).abs().max()) <= found.bound


def test_more_units_than_are_factored_at_a_time(monkeypatch):
    moments = tiny.moments(6, units=21, cells=2, classes=12)
    wanted = sketched(moments, 0.01).distance
    monkeypatch.setattr(sketch, "_UNITS", 5)
    np.testing.assert_allclose(sketched(moments, 0.01).distance, wanted, atol=0.05)


@given(seed=st.integers(0, 10_000))
def test_duplicates_are_at_distance_zero_and_others_are_not(seed):
    plain = tiny.moments(seed, classes=9)
    copies = torch.tensor([0, 1, 2, 3, 4, 5, 2, 5, 5])
    doubled = Moments(plain.count, plain.mean[:, copies], plain.m2[:, copies])
    same = copies.unsqueeze(0) == copies.unsqueeze(1)
    assert torch.equal(sketched(doubled, 0.01).distance == 0, same)


def test_the_plan_says_that_distances_were_sketched():
    moments = tiny.moments(3, units=9, cells=1, classes=12)
    choices = {}
    for pairs in ("exact", "sketch", "auto"):
        settings = CoSePSettings(pairs=pairs, tolerance=0.01)
        profile = profile_of(moments, weights(9), settings)
        choices[pairs] = choose_group(profile, profile.groups[0], settings, 0)
    exact, approximate, auto = (choices[p].keep(4, why="asked") for p in ("exact", "sketch", "auto"))
    assert "sketched, off by at most 0.0" in approximate.reason
    assert approximate.reason.endswith("JM a class pair; asked")
    assert "sketched" not in exact.reason
    assert auto == exact  # a small group
    assert approximate.kept == exact.kept


def test_auto_takes_a_sketch_of_large_groups(monkeypatch):
    from coprune.methods.cosep import method

    moments = tiny.moments(3, units=9, cells=1, classes=12)
    settings = CoSePSettings()
    profile = profile_of(moments, weights(9), settings)
    for limit, is_sketch in ((exact_work(moments), False), (exact_work(moments) - 1, True)):
        monkeypatch.setattr(method, "LARGE", limit)
        choice = choose_group(profile, profile.groups[0], settings, 0)
        assert ("sketched" in choice.distances) == is_sketch
