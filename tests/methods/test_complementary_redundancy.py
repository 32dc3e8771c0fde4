"""Who says what a removed unit said: shares of the variance that a regression on the kept ones explains."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.methods.complementary.redundancy import predictions, similarity, unit_covariance

seeds = st.integers(0, 9999)


def covariance(seed, units, samples=200):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, units, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(units, units, generator=generator, dtype=torch.float64)
    return np.cov(x.numpy().T, bias=True).reshape(units, units), x.numpy()


@given(seed=seeds, units=st.integers(2, 9), data=st.data())
def test_explained_is_r_squared_and_parts_add_up_to_it(seed, units, data):
    c, x = covariance(seed, units)
    kept = sorted(data.draw(st.sets(st.integers(0, units - 1), min_size=1, max_size=units - 1)))
    entries = predictions(torch.from_numpy(c), torch.tensor(kept), ridge=1e-9)
    assert [e.unit for e in entries] == [u for u in range(units) if u not in kept]
    x = x - x.mean(0)
    for entry in entries:
        y = x[:, entry.unit]
        fitted = x[:, kept] @ np.linalg.lstsq(x[:, kept], y, rcond=None)[0]
        assert entry.explained == pytest.approx(1 - ((y - fitted) ** 2).sum() / (y**2).sum(), abs=2e-3)
        parts = [part for _, part in entry.by]
        assert parts == sorted(parts, reverse=True)
        assert all(0 < part <= 1 for part in parts)
        assert {u for u, _ in entry.by} <= set(kept)
        listed = sum(parts)
        if len(kept) <= 6:
            assert listed == pytest.approx(entry.explained, abs=6e-4)
        assert listed <= entry.explained + 6e-4


@given(seed=seeds, scale=st.sampled_from([-3.0, 0.5, 2.0]))
def test_a_multiple_is_explained_by_the_one_it_is_a_multiple_of(seed, scale):
    c, _ = covariance(seed, 5)
    mix = torch.cat([torch.eye(5), torch.eye(5)[2:3] * scale]).double()
    (entry,) = predictions(mix @ torch.from_numpy(c) @ mix.T, torch.arange(5), ridge=1e-9)
    assert entry.unit == 5
    assert entry.explained > 0.999
    assert entry.by[0][0] == 2
    assert entry.by[0][1] > 0.99


def test_what_the_kept_ones_do_not_say_is_explained_by_nobody():
    (entry,) = predictions(torch.eye(4, dtype=torch.float64), torch.tensor([0, 1, 3]))
    assert (entry.unit, entry.explained, entry.by) == (2, 0.0, ())


@pytest.mark.parametrize("constant", [[3], [0], [0, 3], [0, 1, 2, 3]])
def test_units_that_never_vary(constant):
    c = torch.from_numpy(covariance(1, 4)[0])
    c[constant] = 0
    c[:, constant] = 0
    for entry in predictions(c, torch.tensor([0, 1])):
        if entry.unit in constant:
            assert (entry.explained, entry.by) == (1.0, ())
        assert 0 <= entry.explained <= 1
        assert all(unit not in constant for unit, _ in entry.by)


@given(seed=seeds, scale=st.sampled_from([1e-6, 1e6]))
def test_the_scale_of_the_activations_does_not_matter(seed, scale):
    c = torch.from_numpy(covariance(seed, 6)[0])
    once, again = (predictions(x, torch.tensor([0, 2, 5])) for x in (c, scale * c))
    for a, b in zip(once, again, strict=True):
        assert a.explained == pytest.approx(b.explained, abs=2e-4)
        assert [u for u, _ in a.by] == [u for u, _ in b.by]


def test_the_foremost_six_are_listed():
    c, _ = covariance(3, 20)
    assert all(len(e.by) <= 6 for e in predictions(torch.from_numpy(c), torch.arange(15)))


@given(seed=seeds, each=st.sampled_from([1, 4, 9]))
def test_covariance_of_units_is_the_average_over_the_values_of_a_place(seed, each):
    c, _ = covariance(seed, 3 * each)
    found = unit_covariance(torch.from_numpy(c), 3)
    for u in range(3):
        for v in range(3):
            wanted = np.mean([c[u * each + i, v * each + i] for i in range(each)])
            assert float(found[u, v]) == pytest.approx(wanted)


@given(seed=seeds, units=st.integers(2, 5), each=st.integers(1, 4))
def test_units_of_several_channels_against_least_squares(seed, units, each):
    c, x = covariance(seed, units * each)
    x = x - x.mean(0)
    kept = list(range(0, units, 2))
    columns = [u * each + i for u in kept for i in range(each)]
    for entry in predictions(torch.from_numpy(c), torch.tensor(kept), each=each, ridge=1e-9):
        y = x[:, entry.unit * each : (entry.unit + 1) * each]
        fitted = x[:, columns] @ np.linalg.lstsq(x[:, columns], y, rcond=None)[0]
        assert entry.explained == pytest.approx(1 - ((y - fitted) ** 2).sum() / (y**2).sum(), abs=2e-3)
        assert sum(part for _, part in entry.by) == pytest.approx(entry.explained, abs=6e-4)


def test_a_rotated_unit_is_its_twin():
    c, _ = covariance(3, 6)
    turn = torch.linalg.qr(torch.from_numpy(covariance(4, 3)[0]))[0]
    mix = torch.eye(6, dtype=torch.float64)
    mix = torch.cat([mix, turn @ mix[:3]])  # unit 2 is unit 0, its three channels mixed
    wide = mix @ torch.from_numpy(c) @ mix.T
    (entry,) = predictions(wide, torch.tensor([0, 1]), each=3, ridge=1e-9)
    assert (entry.unit, entry.by[0][0]) == (2, 0)
    assert entry.explained > 0.999
    likeness = similarity(wide, 3)
    assert likeness.diagonal() == pytest.approx(1)
    assert likeness[1, 2] == pytest.approx(likeness[0, 1])


@given(seed=seeds)
def test_likeness_of_single_channels_is_the_correlation(seed):
    c, x = covariance(seed, 4)
    assert similarity(torch.from_numpy(c), 1).numpy() == pytest.approx(np.abs(np.corrcoef(x.T)), abs=1e-9)
