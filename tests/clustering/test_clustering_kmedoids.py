"""k-medoids for every k: valid partitions, near the optimum, also with duplicates."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.clustering.assignment import assign
from coprune.clustering.kmedoids import cluster_every_k


def points(seed, units, dims=3):
    x = torch.rand(units, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def assert_partition(distance, clustering, k):
    d = distance.numpy()
    medoids = clustering.medoids.tolist()
    assert medoids == sorted(set(medoids))
    assert len(medoids) == k
    assert set(clustering.labels.tolist()) == set(range(k))  # a medoid belongs to itself
    for cluster, medoid in enumerate(medoids):
        assert clustering.labels[medoid] == cluster
    for unit, label in enumerate(clustering.labels):
        assert d[unit, medoids[label]] == d[unit, medoids].min()
    assert clustering.loss == pytest.approx(sum(d[unit, medoids].min() for unit in range(len(d))), abs=1e-9)


@pytest.mark.parametrize("start", ["previous", "random"])
@given(seed=st.integers(0, 10_000), units=st.integers(3, 14))
def test_every_k_is_a_partition_to_the_nearest_medoid(start, seed, units):
    distance = points(seed, units)
    found = cluster_every_k(distance, seed=seed, start=start)
    assert len(found) == units - 2
    for k, clustering in enumerate(found, start=2):
        assert_partition(distance, clustering, k)


@pytest.mark.parametrize("units", [1, 2])
def test_fewer_than_three_units_have_nothing_to_cluster(units):
    assert cluster_every_k(torch.zeros(units, units, dtype=torch.float64), seed=0) == []


def test_loss_is_near_the_optimum_of_small_groups():
    # All subsets of 9 units: 502 sets for the seven k. A swap can stop in a local optimum.
    found, best = 0.0, 0.0
    for seed in range(6):
        distance = points(seed, 9)
        d = distance.numpy()
        for k, clustering in enumerate(cluster_every_k(distance, seed=0), start=2):
            optimum = min(d[:, list(m)].min(1).sum() for m in itertools.combinations(range(9), k))
            assert clustering.loss >= optimum - 1e-12
            assert clustering.loss <= 1.15 * optimum
            found, best = found + clustering.loss, best + optimum
    assert found <= 1.02 * best


def test_starting_from_the_previous_k_is_no_worse_than_random_starts():
    distance = points(3, 48)
    ours = [c.loss for c in cluster_every_k(distance, seed=0)]
    random = np.mean(
        [[c.loss for c in cluster_every_k(distance, seed=s, start="random")] for s in range(3)], 0
    )
    assert sum(ours) <= 1.02 * random.sum()
    assert all(a <= 1.08 * b for a, b in zip(ours, random, strict=True))


def test_more_clusters_never_cost_more_from_the_previous_start():
    losses = [c.loss for c in cluster_every_k(points(5, 30), seed=0)]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses))


def test_clear_clusters_are_found():
    # Five far-apart heaps of four units each.
    generator = torch.Generator().manual_seed(0)
    heap = torch.arange(20) % 5
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64) * 0.01
    x[:, 0] += heap * 10
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    clustering = cluster_every_k(distance, seed=0)[5 - 2]
    assert sorted(heap[clustering.medoids].tolist()) == [0, 1, 2, 3, 4]
    for cluster, medoid in enumerate(clustering.medoids):
        assert set(heap[clustering.labels == cluster].tolist()) == {int(heap[medoid])}


@pytest.mark.parametrize("start", ["previous", "random"])
def test_all_units_equal(start):
    distance = torch.zeros(7, 7, dtype=torch.float64)
    found = cluster_every_k(distance, seed=0, start=start)
    assert len(found) == 5
    for k, clustering in enumerate(found, start=2):
        assert_partition(distance, clustering, k)
        assert clustering.loss == 0


@pytest.mark.parametrize("start", ["previous", "random"])
@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 3), min_size=5, max_size=12))
def test_duplicates_share_a_medoid_while_distinct_units_lack_one(start, seed, copies):
    base = points(seed, 4)
    index = torch.tensor([0, 1, 2, 3, *copies])
    distance = base[index][:, index].contiguous()
    for k, clustering in enumerate(cluster_every_k(distance, seed=0, start=start), start=2):
        assert_partition(distance, clustering, k)
        kinds = {int(index[m]) for m in clustering.medoids}
        assert len(kinds) == min(k, 4)
        assert k < 4 or clustering.loss == 0


def test_the_distances_are_left_as_they_were_and_the_answer_repeats():
    distance = points(9, 20)
    before = distance.clone()
    first, again = cluster_every_k(distance, seed=0), cluster_every_k(distance, seed=0)
    assert torch.equal(distance, before)
    assert all(np.array_equal(a.medoids, b.medoids) for a, b in zip(first, again, strict=True))


def test_assign_gives_ties_to_the_first_medoid_but_a_medoid_to_itself():
    x = np.array([0.0, 5.0, 10.0, 10.0])
    distance = np.abs(x[:, None] - x[None])
    clustering = assign(distance, np.array([0, 2, 3]))
    assert clustering.labels.tolist() == [0, 0, 1, 2]
    assert clustering.loss == 5
