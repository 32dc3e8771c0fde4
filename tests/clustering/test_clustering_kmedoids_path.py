"""One search for every k: the sums it keeps, local optima, and independent FasterPAM runs."""

import itertools

import kmedoids
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_clustering_kmedoids import assert_partition, points

from coprune.clustering import kmedoids as clusters
from coprune.clustering.kmedoids import cluster_every_k
from coprune.clustering.kmedoids_path import Medoids, medoids_every_k


def loss_of(d, medoids):
    return d[:, list(medoids)].min(1).sum()


def assert_sums(search, d):
    """What the search keeps equals what its formulas give from its medoids."""
    k, units = len(search._medoids), len(d)
    to = d[:, search._medoids]
    np.testing.assert_allclose(search.d1, to.min(1))
    np.testing.assert_allclose(to[np.arange(units), search.near], to.min(1))
    np.testing.assert_allclose(search.d2, np.sort(to, 1)[:, 1])
    gain = np.maximum(0, search.d1[:, None] - d).sum(0)
    a = np.zeros((k, units))
    for o in range(units):
        a[search.near[o]] += np.clip(d[o] - search.d1[o], 0, search.d2[o] - search.d1[o])
    np.testing.assert_allclose(search._gain, gain, atol=1e-9)
    np.testing.assert_allclose(search._a[:k], a, atol=1e-9)


@given(seed=st.integers(0, 10_000), units=st.integers(4, 16))
def test_sums_are_kept_and_no_swap_helps(seed, units):
    d = points(seed, units).numpy()
    search = Medoids(d)
    steps = [search.grow] * (units - 2) + [search.shrink] * (units - 3)
    for step in steps:
        step()
        assert_sums(search, d)
        medoids = search._medoids.tolist()
        assert search.loss == pytest.approx(loss_of(d, medoids))
        for i, c in itertools.product(range(len(medoids)), set(range(units)) - set(medoids)):
            swapped = [*medoids[:i], c, *medoids[i + 1 :]]
            assert loss_of(d, swapped) >= search.loss - 1e-9


@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_every_k_is_a_partition_also_with_duplicates(seed, copies):
    index = torch.tensor([0, 1, 2, 3, *copies])
    distance = points(seed, 4)[index][:, index].contiguous()
    found = cluster_every_k(distance, seed=0, start="best")
    assert len(found) == len(index) - 2
    for k, clustering in enumerate(found, start=2):
        assert_partition(distance, clustering, k)
        kinds = {int(index[m]) for m in clustering.medoids}
        assert len(kinds) == min(k, 4)


def test_all_units_equal():
    found = cluster_every_k(torch.zeros(7, 7, dtype=torch.float64), seed=0, start="best")
    for k, clustering in enumerate(found, start=2):
        assert_partition(torch.zeros(7, 7, dtype=torch.float64), clustering, k)


@pytest.mark.parametrize("dims", [2, 30])
def test_the_objective_is_that_of_independent_runs_or_better(dims):
    distance = points(1, 120, dims)
    d = np.ascontiguousarray(distance.numpy())
    ours = np.array([c.loss for c in medoids_every_k(d)])
    runs = np.array(
        [
            [kmedoids.fasterpam(d, k, init="random", random_state=s, n_cpu=1).loss for k in range(2, 120)]
            for s in range(3)
        ]
    )
    assert ours.sum() <= runs.mean(0).sum()
    # A lucky start can end lower at a single k, by little.
    assert (ours <= 1.01 * runs.mean(0)).all()
    # From there FasterPAM finds little: it also wanders along swaps that change nothing.
    again = [kmedoids.fasterpam(d, c.medoids.astype(np.uint64), n_cpu=1).loss for c in medoids_every_k(d)]
    assert ours.sum() <= 1.001 * sum(again)


def test_auto_searches_once_above_a_size(monkeypatch):
    distance = points(2, 20)
    monkeypatch.setattr(clusters, "LARGE", 20)
    small = cluster_every_k(distance, seed=0)
    monkeypatch.setattr(clusters, "LARGE", 19)
    large = cluster_every_k(distance, seed=0)
    for start, found in (("previous", small), ("best", large)):
        wanted = cluster_every_k(distance, seed=0, start=start)
        assert all(np.array_equal(a.labels, b.labels) for a, b in zip(found, wanted, strict=True))
