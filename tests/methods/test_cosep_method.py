"""CoSeP as a whole on synthetic moments: duplicates go first, order does not matter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.clustering.assignment import Clustering, heaviest
from coprune.methods.cosep import COSEP, CoSePSettings
from coprune.methods.cosep.method import choose_group
from coprune.statistics import L1Norm, Profile
from coprune.statistics.moments import Moments


def profile_of(moments, weight, settings):
    """A profile with one group, as if it had been gathered."""
    group = tiny.group(moments.mean.shape[1])
    tensors = {
        settings.moments.key: {f"conv/{part}": getattr(moments, part) for part in ("count", "mean", "m2")},
        L1Norm().key: {"conv": weight},
    }
    return Profile((group,), tensors)


def choose(moments, weight, settings=None, seed=0):
    settings = settings or CoSePSettings()
    profile = profile_of(moments, weight, settings)
    return choose_group(profile, profile.groups[0], settings, seed)


def pick(moments, index):
    return Moments(moments.count, moments.mean[:, index], moments.m2[:, index])


def weights(n, seed=0):
    """All different."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).double() + 1


CLUSTERING = Clustering(np.array([1, 4]), np.array([0, 0, 1, 1, 1]), 0.0)


def test_the_representative_is_the_heaviest_member_or_the_medoid():
    weight = torch.tensor([5.0, 1.0, 2.0, 9.0, 3.0], dtype=torch.float64)
    assert heaviest(CLUSTERING, weight.numpy()).tolist() == [0, 3]


def test_of_equal_weights_the_first_unit_stays():
    assert heaviest(CLUSTERING, np.ones(5)).tolist() == [0, 2]
    weight = torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0], dtype=torch.float64)
    assert heaviest(CLUSTERING, weight.numpy()).tolist() == [0, 3]


@pytest.mark.parametrize("start", ["previous", "random"])
@pytest.mark.parametrize("representative", ["weight", "medoid"])
@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_a_duplicate_is_never_kept_twice_while_a_distinct_unit_goes(start, representative, seed, copies):
    mixed = torch.randperm(5 + len(copies), generator=torch.Generator().manual_seed(seed))
    index = torch.tensor([0, 1, 2, 3, 4, *copies])[mixed]
    choice = choose(
        pick(tiny.moments(seed, units=5), index),
        weights(len(index), seed),
        CoSePSettings(start=start, representative=representative),
    )
    for k in range(2, 6):
        kinds = index[list(choice.keep(k, why="test").kept)].tolist()
        assert len(set(kinds)) == k, f"k={k} kept {sorted(kinds)}"


def test_of_duplicates_the_heaviest_stays():
    index = torch.tensor([0, 1, 2, 0, 1, 2])
    weight = torch.tensor([1.0, 5.0, 3.0, 2.0, 4.0, 3.5], dtype=torch.float64)
    assert choose(pick(tiny.moments(0, units=3), index), weight).keep(3, why="").kept == (1, 3, 5)


@given(seed=st.integers(0, 10_000), order=st.permutations(range(12)))
def test_permuting_units_permutes_what_is_kept(seed, order):
    # Four clear kinds of three similar units; with clusters this clear the swaps have one optimum.
    kinds = tiny.moments(seed, units=4)
    index, noise = torch.arange(12) % 4, torch.Generator().manual_seed(seed)
    moments = pick(kinds, index)
    moments.mean.add_(1e-3 * torch.rand(moments.mean.shape, generator=noise, dtype=torch.float64))
    weight, order = weights(12, seed), torch.tensor(order)
    plain = choose(moments, weight).keep(4, why="").kept
    moved = choose(pick(moments, order), weight[order]).keep(4, why="").kept
    assert sorted(order[list(moved)].tolist()) == list(plain)


@pytest.mark.parametrize("space", ["profile", "tsne"])
def test_exactly_k_units_are_kept_for_every_k(space):
    moments = tiny.moments(2, units=9)
    choice = choose(moments, weights(9), CoSePSettings(space=space))
    for k in range(1, 10):
        decision = choice.keep(k, why="test")
        assert len(decision.kept) == k
        assert len(decision.clusters) == 9
        assert len(decision.medoids) == k
        # One kept unit a cluster.
        assert len({decision.clusters[u] for u in decision.kept}) == k
    assert len(choice.curve) == 7
    assert [k for k, _ in choice.curve] == list(range(2, 9))
    assert 2 <= choice.knee.k <= 9


@pytest.mark.parametrize("units", [1, 2, 3])
def test_tiny_groups(units):
    choice = choose(tiny.moments(0, units=units), weights(units))
    assert choice.knee.k == units  # too few points for a knee: all stay, and that is recorded
    assert choice.knee.fallback
    for k in range(1, units + 1):
        assert len(choice.keep(k, why="").kept) == k


def test_a_group_of_equal_units_has_an_answer():
    moments = pick(tiny.moments(0), torch.zeros(6, dtype=torch.int64))
    choice = choose(moments, weights(6))
    assert choice.knee.fallback  # the silhouette of nothing but duplicates is flat
    assert choice.keep(1, why="").kept == (int(weights(6).argmax()),)


@pytest.mark.parametrize(
    "settings",
    [CoSePSettings(), CoSePSettings(mss="nearest", knee="polynomial", knee_degree=6, start="random")],
)
def test_the_method_answers_for_every_group_and_repeats(settings):
    profile = profile_of(tiny.moments(4, units=10), weights(10), settings)
    first, again = (COSEP.choose(profile, settings, 3) for _ in range(2))
    assert [c.group.name for c in first] == ["conv"]
    assert first[0].keep(4, why="x") == again[0].keep(4, why="x")
    assert first[0].knee == again[0].knee


def test_the_method_declares_what_it_reads():
    settings = CoSePSettings(grid=2, at="producer")
    assert {s.key for s in COSEP.needs(settings)} == {"class_moments-producer-grid2", "weights-l1_norm"}


def test_unknown_or_impossible_settings_are_refused():
    for bad in ({"grid": -1}, {"variance_eps": 0}, {"mss": "usual"}, {"no_such": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            CoSePSettings(**bad)
