"""Both mean simplified silhouettes against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.clustering.assignment import Clustering, assign
from coprune.clustering.kmedoids import cluster_every_k
from coprune.clustering.silhouette import silhouette_curve


def mean_silhouette(distance, clustering, *, variant):
    return silhouette_curve(distance, [clustering], variant=variant)[0]


def silhouette_loop(distance, medoids, labels, variant):
    values = []
    for i in range(len(distance)):
        own = medoids[labels[i]]
        a = float(distance[i][own])
        others = [float(distance[i][m]) for m in medoids if m != own]
        if variant == "paper":
            if a == 0:
                continue
            b = sum(others) / len(others)
        else:
            b = min(others)
        values.append(0.0 if max(a, b) == 0 else (b - a) / max(a, b))
    return sum(values) / len(values) if values else 1.0


def points(seed, units, duplicates):
    """Distances of random points in the plane; the last ``duplicates`` repeat the first ones."""
    x = torch.rand(units, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if duplicates:
        x[-duplicates:] = x[:duplicates]
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize("variant", ["paper", "nearest"])
@given(seed=st.integers(0, 10_000), units=st.integers(4, 12), duplicates=st.integers(0, 2))
def test_silhouette_equals_a_plain_loop_at_every_k(variant, seed, units, duplicates):
    distance = points(seed, units, duplicates)
    for clustering in cluster_every_k(distance, seed=0):  # k = 2 … U − 1
        found = mean_silhouette(distance, clustering, variant=variant)
        wanted = silhouette_loop(distance.tolist(), clustering.medoids, clustering.labels, variant)
        assert found == pytest.approx(wanted, abs=1e-12)
        assert -1 <= found <= 1


def test_by_hand():
    # On a line: medoids at 0 and 10 and 20, one unit at 4. a = 4; others at 6 and 16.
    x = torch.tensor([0.0, 4.0, 10.0, 20.0], dtype=torch.float64)
    distance = (x.unsqueeze(0) - x.unsqueeze(1)).abs()
    clustering = assign(distance.numpy(), np.array([0, 2, 3]))
    assert mean_silhouette(distance, clustering, variant="paper") == pytest.approx((11 - 4) / 11)
    # nearest: the three medoids have s = 1, the unit (6 − 4)/6.
    assert mean_silhouette(distance, clustering, variant="nearest") == pytest.approx((3 + 1 / 3) / 4)


def test_paper_variant_leaves_out_medoids_and_their_duplicates_and_is_1_when_none_remain():
    x = torch.tensor([0.0, 0.0, 5.0, 5.0, 5.0], dtype=torch.float64)
    distance = (x.unsqueeze(0) - x.unsqueeze(1)).abs()
    clustering = assign(distance.numpy(), np.array([0, 2]))
    assert mean_silhouette(distance, clustering, variant="paper") == 1.0


def test_a_unit_on_two_medoids_at_once_counts_0_in_the_nearest_variant():
    distance = torch.zeros(3, 3, dtype=torch.float64)
    clustering = Clustering(np.array([0, 1]), np.array([0, 1, 0]), 0.0)
    assert mean_silhouette(distance, clustering, variant="nearest") == 0.0
    assert mean_silhouette(distance, clustering, variant="paper") == 1.0


def test_the_clustering_is_not_changed():
    distance = points(1, 8, 0)
    before = distance.clone()
    for clustering in cluster_every_k(distance, seed=0):
        mean_silhouette(distance, clustering, variant="nearest")
        mean_silhouette(distance, clustering, variant="paper")
    assert torch.equal(distance, before)


@pytest.mark.parametrize("variant", ["paper", "nearest"])
def test_a_curve_is_its_points(variant):
    x = torch.rand(17, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[5] = x[6]
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    found = cluster_every_k(distance, seed=0)
    curve = silhouette_curve(distance, found, variant=variant)
    points = [mean_silhouette(distance, c, variant=variant) for c in found]
    assert curve == pytest.approx(points, abs=1e-12)
    assert silhouette_curve(distance, [], variant=variant) == []
