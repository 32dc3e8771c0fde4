"""The plane that shows units: distances of points that lie in a plane come back."""

import numpy as np
import pytest
import torch

from coprune.clustering.embedding import classical_scaling, tsne


def plane(seed, n=8):
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def test_scaling_gives_plane_distances_back():
    distance = plane(0)
    found = classical_scaling(distance)
    again = torch.cdist(found, found, compute_mode="donot_use_mm_for_euclid_dist")
    np.testing.assert_allclose(again.numpy(), distance.numpy(), atol=1e-9)
    np.testing.assert_allclose(found.mean(0).numpy(), 0, atol=1e-12)


def test_the_largest_coordinate_of_an_axis_is_positive():
    found = classical_scaling(plane(1))
    for axis in found.T:
        assert axis[axis.abs().argmax()] > 0


@pytest.mark.parametrize("units", [1, 2, 3])
def test_few_units_have_a_place_too(units):
    for found in (classical_scaling(plane(2, units)), tsne(plane(2, units), seed=0)):
        assert found.shape == (units, 2)
        assert torch.isfinite(found).all()


def test_equal_units_share_one_place():
    assert not classical_scaling(torch.zeros(5, 5, dtype=torch.float64)).any()


def test_tsne_repeats_with_its_seed():
    distance = plane(3, 12)
    assert torch.equal(tsne(distance, seed=1), tsne(distance, seed=1))
    assert tsne(distance, seed=1).shape == (12, 2)
