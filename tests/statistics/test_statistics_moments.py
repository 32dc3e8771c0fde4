"""Class-conditional moments against plain loops, and the merge that makes streaming exact."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.statistics import moments as module
from coprune.statistics.moments import Moments, batch_moments, to_grid


def moments_loop(values, labels, classes):
    """Count, mean and sum of squared deviations with Python loops, two passes."""
    n, units, cells = values.shape
    count = np.zeros(classes)
    mean, m2 = np.zeros((classes, units, cells)), np.zeros((classes, units, cells))
    for c in range(classes):
        members = [i for i in range(n) if labels[i] == c]
        count[c] = len(members)
        for u in range(units):
            for g in range(cells):
                x = [float(values[i, u, g]) for i in members]
                if x:
                    mean[c, u, g] = sum(x) / len(x)
                    m2[c, u, g] = sum((v - mean[c, u, g]) ** 2 for v in x)
    return count, mean, m2


def assert_moments(found: Moments, wanted, atol=1e-9):
    for part, value in zip(("count", "mean", "m2"), wanted, strict=True):
        np.testing.assert_allclose(getattr(found, part).numpy(), value, rtol=1e-9, atol=atol, err_msg=part)


def draw(seed, n=30, units=4, cells=3, classes=5):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, units, cells, generator=generator, dtype=torch.float64) * 3 + 7
    return values, torch.randint(0, classes, (n,), generator=generator)


def test_moments_equal_a_plain_loop():
    values, labels = draw(0)
    assert_moments(batch_moments(values, labels, classes=5), moments_loop(values.numpy(), labels.numpy(), 5))


@pytest.mark.parametrize("size", [1, 29, 30, 60, 90, 10_000])
def test_the_size_of_a_block_does_not_matter(monkeypatch, size):
    # 30 samples of 12 columns: one column at a time, …, two, three, all.
    monkeypatch.setattr(module, "BLOCK_VALUES", size)
    values, labels = draw(6)
    assert_moments(batch_moments(values, labels, classes=5), moments_loop(values.numpy(), labels.numpy(), 5))


def test_float32_is_accumulated_in_float64():
    values, labels = draw(1)
    values = values.float()
    found = batch_moments(values, labels, classes=5)
    assert found.mean.dtype == torch.float64
    assert_moments(found, moments_loop(values.numpy(), labels.numpy(), 5))


def test_a_large_offset_does_not_eat_the_variance():
    # E[x²] − E[x]² would have no digit left at 1e8; the spread here is 1.
    values, labels = draw(2)
    shifted = batch_moments(values + 1e8, labels, classes=5)
    np.testing.assert_allclose(
        shifted.m2.numpy(), batch_moments(values, labels, classes=5).m2.numpy(), rtol=1e-6
    )


def test_the_input_is_left_as_it_was():
    # batch_moments squares in place; float64 input must not be the tensor that is squared.
    values, labels = draw(3)
    before = values.clone()
    batch_moments(values, labels, classes=5)
    assert torch.equal(values, before)


def test_sample_variance_divides_by_one_less_and_one_sample_has_none():
    values = torch.tensor([[[1.0]], [[3.0]], [[5.0]]], dtype=torch.float64)
    found = batch_moments(values, torch.tensor([0, 0, 1]), classes=3)
    assert found.variance.flatten().tolist() == [2.0, 0.0, 0.0]  # (1 + 1)/1; one sample; none


@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 30), max_size=5))
def test_moments_of_any_split_merge_to_the_whole(seed, cuts):
    values, labels = draw(seed)
    edges = [0, *sorted(cuts), 30]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges) if b > a]
    merged = batch_moments(values[parts[0]], labels[parts[0]], classes=5)
    for part in parts[1:]:
        merged = merged.merge(batch_moments(values[part], labels[part], classes=5))
    assert_moments(merged, moments_loop(values.numpy(), labels.numpy(), 5))


@given(seed=st.integers(0, 10_000))
def test_merging_has_no_order(seed):
    values, labels = draw(seed, n=12)
    a = batch_moments(values[:5], labels[:5], classes=5)
    b = batch_moments(values[5:], labels[5:], classes=5)
    ab, ba = a.merge(b), b.merge(a)
    assert_moments(ab, (ba.count.numpy(), ba.mean.numpy(), ba.m2.numpy()))


def test_a_class_missing_from_one_batch_takes_the_other_batchs_moments():
    values, _ = draw(4, n=8)
    a = batch_moments(values[:4], torch.tensor([0, 0, 0, 0]), classes=3)
    b = batch_moments(values[4:], torch.tensor([1, 1, 1, 1]), classes=3)
    assert a.count.tolist() == [4, 0, 0]
    both = a.merge(b)
    assert_moments(both, moments_loop(values.numpy(), np.array([0] * 4 + [1] * 4), 3))
    # A class without a sample anywhere stays 0 and finite.
    assert both.count[2] == 0
    assert not both.mean[2].any()
    assert not both.m2[2].any()


@given(seed=st.integers(0, 10_000), data=st.data())
def test_permuting_classes_and_units_permutes_the_moments(seed, data):
    values, labels = draw(seed)
    classes = torch.tensor(data.draw(st.permutations(range(5))))
    units = torch.tensor(data.draw(st.permutations(range(4))))
    plain = batch_moments(values, labels, classes=5)
    moved = batch_moments(values[:, units], classes[labels], classes=5)
    # Class c is now called classes[c].
    assert_moments(
        Moments(moved.count[classes], moved.mean[classes], moved.m2[classes]),
        (plain.count.numpy(), plain.mean[:, units].numpy(), plain.m2[:, units].numpy()),
    )


def test_grid_by_hand():
    x = torch.arange(2 * 4 * 4, dtype=torch.float64).view(1, 2, 4, 4)
    assert to_grid(x, units=2, grid=None).shape == (1, 2, 16)
    assert torch.equal(to_grid(x, units=2, grid=1).flatten(), torch.tensor([7.5, 23.5], dtype=torch.float64))
    # Quadrants of the first map 0…15: {0,1,4,5}, {2,3,6,7}, {8,9,12,13}, {10,11,14,15}.
    assert to_grid(x, units=2, grid=2)[0, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_signals_and_volumes_have_cells_along_every_axis():
    signals = torch.arange(12, dtype=torch.float64).view(1, 2, 6)
    assert to_grid(signals, units=2, grid=1).flatten().tolist() == [2.5, 8.5]
    assert to_grid(signals, units=2, grid=2)[0].tolist() == [[1.0, 4.0], [7.0, 10.0]]
    assert torch.equal(to_grid(signals, units=2, grid=None), signals)
    volumes = torch.arange(16, dtype=torch.float64).view(1, 1, 2, 2, 4)
    assert to_grid(volumes, units=1, grid=2)[0, 0].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.5]


def test_grid_is_at_most_the_map():
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    assert torch.equal(to_grid(x, units=2, grid=4), x.flatten(2))


def test_grid_of_a_flattened_map_reads_unit_by_unit():
    x = torch.tensor([[1.0, 3.0, 10.0, 30.0]])  # two units, two pixels each
    assert to_grid(x, units=2, grid=None).tolist() == [[[1.0, 3.0], [10.0, 30.0]]]
    assert to_grid(x, units=2, grid=1).tolist() == [[[2.0], [20.0]]]
    assert to_grid(torch.tensor([[5.0, 6.0]]), units=2, grid=1).tolist() == [[[5.0], [6.0]]]


def test_grid_of_tokens_is_taken_unit_by_unit():
    # Once a bug: [N, T, U], what a linear layer reads in a transformer, is reshaped as
    # if it were [N, U, T]; find_units offers such groups. Units are the last axis there. Either the
    # right figures or a refusal, never another unit's tokens.
    x = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])  # one sample, three tokens, two units
    try:
        found = to_grid(x, units=2, grid=1, last=True)
    except ValueError:
        return
    assert found.tolist() == [[[2.0], [20.0]]]


def test_labels_beyond_the_classes_are_refused():
    values, labels = draw(5)
    with pytest.raises((RuntimeError, ValueError)):
        batch_moments(values, labels + 3, classes=5)


@given(seed=st.integers(0, 10_000), classes=st.integers(5, 9))
def test_batches_of_some_classes_add_up_to_all(seed, classes):
    values, labels = draw(seed, classes=classes)
    whole = Moments.none(classes, values.shape[1:])
    for part in torch.arange(len(values)).split(4):  # four samples cannot have all five classes
        present, own = labels[part].unique(return_inverse=True)
        whole.add_(batch_moments(values[part], own, classes=len(present)), present)
    assert_moments(whole, moments_loop(values.numpy(), labels.numpy(), classes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_float32(dtype):
    maps = (torch.rand(3, 2, 40, 40, generator=torch.Generator().manual_seed(0)) + 3).to(dtype)
    for grid in (1, 2):
        found = to_grid(maps, units=2, grid=grid)
        np.testing.assert_allclose(found, to_grid(maps.double(), units=2, grid=grid), rtol=1e-6)
    assert to_grid(maps, units=2, grid=None).dtype == dtype
