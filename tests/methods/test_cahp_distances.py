"""Distances between heads against a brute-force twin: every cell, every pair of classes, in a loop."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.clustering import distances
from coprune.errors import UserError
from coprune.methods.cahp.distances import head_distances, together
from coprune.statistics.moments import Moments

FLOOR = 1e-6


def variance(moments, c, h, g):
    n = float(moments.count[c])
    return max(float(moments.m2[c, h, g]) / (n - 1), FLOOR) if n > 1 else FLOOR


def brute_force(layers):
    """Rows of JM values, one number at a time, then Euclidean distances."""
    rows = []
    for moments in layers:
        classes, heads, cells = moments.mean.shape
        for h in range(heads):
            row = []
            for p, q in itertools.combinations(range(classes), 2):
                for g in range(cells):
                    mp, mq = (float(moments.mean[c, h, g]) for c in (p, q))
                    vp, vq = (variance(moments, c, h, g) for c in (p, q))
                    b = 0.25 * (mp - mq) ** 2 / (vp + vq)
                    b += 0.5 * math.log((vp + vq) / (2 * math.sqrt(vp * vq)))
                    row.append(2 * (1 - math.exp(-b)))
            rows.append(row)
    rows = np.array(rows)
    return np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(2))


def layers_of(seed, *, classes=4, layers=3):
    """Moments of several layers over the same samples, of the size of attention weights."""
    found = [tiny.moments(seed + i, classes=classes, units=4, cells=5) for i in range(layers)]
    return [Moments(found[0].count, m.mean * 0.01, m.m2 * 1e-5) for m in found]


@given(seed=st.integers(0, 10_000))
def test_distances_equal_brute_force(seed):
    layers = layers_of(seed)
    np.testing.assert_allclose(head_distances(layers).numpy(), brute_force(layers), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("values", [1, 70, 150])
def test_blocks_of_pairs_do_not_matter(values, monkeypatch):
    layers = layers_of(3)
    whole = head_distances(layers)
    monkeypatch.setattr(distances, "TILE_VALUES", values)
    torch.testing.assert_close(head_distances(layers), whole, rtol=1e-9, atol=1e-9)


def test_a_class_with_one_sample_has_the_floor_as_its_variance():
    layers = layers_of(1)
    for m in layers:
        m.count[2] = 1
        m.m2[2] = 0
    assert torch.equal(together(layers).variance[2], torch.full((12, 5), FLOOR, dtype=torch.float64))
    np.testing.assert_allclose(head_distances(layers).numpy(), brute_force(layers), rtol=1e-6, atol=1e-7)


def test_a_class_without_samples_says_nothing():
    layers = layers_of(2)
    without = [Moments(m.count[[0, 1, 3]], m.mean[[0, 1, 3]], m.m2[[0, 1, 3]]) for m in layers]
    for m in layers:
        m.count[2] = 0
        m.mean[2] = 0
        m.m2[2] = 0
    torch.testing.assert_close(head_distances(layers), head_distances(without))


def test_one_class_is_refused():
    moments = tiny.moments(0)
    moments.count[1:] = 0
    with pytest.raises(UserError, match="fewer than two have samples"):
        head_distances([moments])


@given(seed=st.integers(0, 10_000), order=st.permutations(range(4)))
def test_the_order_of_classes_does_not_matter(seed, order):
    layers = layers_of(seed)
    mixed = [Moments(m.count[order], m.mean[order], m.m2[order]) for m in layers]
    torch.testing.assert_close(head_distances(mixed), head_distances(layers), rtol=1e-7, atol=1e-8)


def test_equal_heads_are_at_distance_zero():
    layers = layers_of(5)
    layers[2].mean[:, 1], layers[2].m2[:, 1] = layers[0].mean[:, 3], layers[0].m2[:, 3]
    distance = head_distances(layers)
    assert distance[3, 9] == 0
    assert int((distance == 0).sum()) == 12 + 2
