"""One pass of elimination gives what solving every set from scratch gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coprune.methods.complementary import elimination
from coprune.methods.complementary.elimination import Reader, eliminate

RIDGE = 1e-3


def reader(seed, units, each, outputs=5, mixed=True):
    """A consumer of units that say much of the same (``mixed``), or nothing of the same."""
    generator = torch.Generator().manual_seed(seed)
    width = units * each
    x = torch.randn(4 * width, width, generator=generator, dtype=torch.float64)
    if mixed:
        x = x @ torch.randn(width, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, width, generator=generator, dtype=torch.float64)
    return Reader(x.T @ x / len(x), weight)


def with_twin(of, units, each, weight_of_twin=None):
    """The same with unit 0 once more as the last unit."""
    columns = list(range(units * each)) + list(range(each))
    weight = torch.cat([of.weight, of.weight[:, :each] if weight_of_twin is None else weight_of_twin], 1)
    return Reader(of.covariance[columns][:, columns], weight)


def columns_of(units, each):
    return [u * each + i for u in units for i in range(each)]


def loss_of(readers, units, kept, ridge=RIDGE):
    """Squared error when the consumers are solved again on ``kept``, each by NumPy's own solver."""
    total = 0.0
    for one in readers:
        c, w = one.covariance.numpy(), one.weight.numpy()
        each = len(c) // units
        system = c + ridge * np.mean(np.diag(c)) * np.eye(len(c))
        # ‖(W' − W) R‖² with R Rᵀ = the system, W' free on the kept columns and 0 elsewhere.
        root = np.linalg.cholesky(system)
        stays = columns_of(kept, each)
        wanted = (w @ root).T
        found = np.linalg.lstsq(root[stays].T, wanted, rcond=None)[0] if stays else None
        rest = wanted if found is None else wanted - root[stays].T @ found
        total += float((rest**2).sum())
    return total


def greedy(readers, units):
    """Always the unit without which the rest, solved from scratch, loses least."""
    left, order, losses = list(range(units)), [], [0.0]
    while left:
        costs = [loss_of(readers, units, [v for v in left if v != u]) for u in left]
        losses.append(min(costs))
        order.append(left.pop(int(np.argmin(costs))))
    return order, losses


@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_order_and_loss_are_those_of_a_greedy_search_from_scratch(seed, each, count):
    readers = [reader(seed + 10 * i, 7, each) for i in range(count)]
    found = eliminate(readers, 7, ridge=RIDGE)
    order, losses = greedy(readers, 7)
    assert found.order.tolist() == order
    np.testing.assert_allclose(found.loss, losses, rtol=1e-7, atol=1e-7 * losses[-1])


@given(seed=st.integers(0, 9999), units=st.integers(1, 9), each=st.sampled_from([1, 2, 9]))
def test_the_loss_of_every_k_is_that_of_its_set(seed, units, each):
    one = reader(seed, units, each)
    found = eliminate([one], units, ridge=RIDGE)
    assert sorted(found.order.tolist()) == list(range(units))
    assert len(found.loss) == units + 1
    assert found.loss[0] == 0
    assert (found.loss.diff() >= 0).all()
    scale = loss_of([one], units, [])
    for gone in range(units + 1):
        kept = found.order[gone:].tolist()
        assert float(found.loss[gone]) == pytest.approx(loss_of([one], units, kept), abs=1e-8 * scale)


def test_two_consumers_with_other_widths_add_up():
    readers = [reader(0, 6, 1, outputs=3), reader(1, 6, 4, outputs=8)]
    found = eliminate(readers, 6, ridge=RIDGE)
    assert found.order.tolist() == greedy(readers, 6)[0]
    for gone in range(7):
        kept = found.order[gone:].tolist()
        parts = sum(loss_of([one], 6, kept) for one in readers)
        assert float(found.loss[gone]) == pytest.approx(parts, rel=1e-7, abs=1e-6)


@given(seed=st.integers(0, 9999), each=st.sampled_from([1, 4]))
def test_permuting_units_permutes_the_order(seed, each):
    one = reader(seed, 8, each)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    columns = columns_of(order.tolist(), each)
    other = Reader(one.covariance[columns][:, columns], one.weight[:, columns])
    a, b = eliminate([one], 8), eliminate([other], 8)
    assert order[b.order].tolist() == a.order.tolist()
    torch.testing.assert_close(a.loss, b.loss, rtol=1e-6, atol=1e-6 * float(a.loss[-1]))


@given(seed=st.integers(0, 9999), each=st.sampled_from([1, 4]))
def test_of_a_duplicated_unit_one_goes_first_and_the_other_stays_as_if_alone(seed, each):
    one = reader(seed, 6, each, mixed=False)
    found = eliminate([with_twin(one, 6, each)], 7, ridge=1e-6)
    first, *rest = found.order.tolist()
    assert first in (0, 6)  # before any unit that says something of its own
    assert float(found.loss[1]) < 1e-3 * float(found.loss[2])
    # Its twin then has both weights, and goes in the turn that it has without any twin.
    merged = Reader(one.covariance, one.weight.clone())
    merged.weight[:, :each] *= 2
    alone = eliminate([merged], 6, ridge=1e-6)
    assert [u % 6 for u in rest] == alone.order.tolist()


def test_a_unit_that_nobody_reads_and_one_that_never_varies_go_first():
    one = reader(5, 6, 1)
    one.weight[:, 2] = 0
    one.covariance[4] = one.covariance[:, 4] = 0
    one.covariance[2] = one.covariance[:, 2] = 0
    one.covariance[2, 2] = 1.0
    found = eliminate([one], 6)
    assert set(found.order[:2].tolist()) == {2, 4}


def test_dead_units_are_no_error():
    dead = Reader(torch.zeros(8, 8, dtype=torch.float64), torch.ones(3, 8, dtype=torch.float64))
    found = eliminate([dead], 4)
    assert sorted(found.order.tolist()) == [0, 1, 2, 3]
    assert torch.isfinite(found.loss).all()


def test_the_readers_are_left_as_they_were():
    one = reader(3, 5, 4)
    covariance, weight = one.covariance.clone(), one.weight.clone()
    eliminate([one], 5)
    assert torch.equal(one.covariance, covariance)
    assert torch.equal(one.weight, weight)


class TestSeveralAtATime:
    """Of a large group several units go in a step; here of a small one, with EXACT set low."""

    @pytest.fixture(autouse=True)
    def _large(self, monkeypatch):
        monkeypatch.setattr(elimination, "EXACT", 8)
        monkeypatch.setattr(elimination, "SHARE", 4)

    @settings(max_examples=15)
    @given(seed=st.integers(0, 9999), each=st.sampled_from([1, 4]))
    def test_the_loss_is_still_that_of_the_set(self, seed, each):
        one = reader(seed, 20, each)
        found = eliminate([one], 20, ridge=RIDGE)
        assert sorted(found.order.tolist()) == list(range(20))
        scale = loss_of([one], 20, [])
        for gone in range(0, 21, 4):
            kept = found.order[gone:].tolist()
            assert float(found.loss[gone]) == pytest.approx(loss_of([one], 20, kept), abs=1e-8 * scale)

    @settings(max_examples=15)
    @given(seed=st.integers(0, 9999), each=st.sampled_from([1, 4]))
    def test_twins_do_not_go_together(self, seed, each):
        # Once a bug: each of them alone can be spared, so both were in the first step.
        one = reader(seed, 20, each, mixed=False)
        found = eliminate([with_twin(one, 20, each)], 21, ridge=1e-6)
        order = found.order.tolist()
        assert order[0] in (0, 20)
        assert float(found.loss[1]) < 1e-3 * float(found.loss[2])
        assert not {0, 20} <= set(order[:5])  # the step: 21 // 4 of them

    def test_it_costs_little_more_than_one_at_a_time(self, monkeypatch):
        several, single = [], []
        for seed in range(8):
            one = reader(seed, 30, 1)
            several.append(eliminate([one], 30).loss)
            with monkeypatch.context() as patch:
                patch.setattr(elimination, "EXACT", 30)
                single.append(eliminate([one], 30).loss)
        half = [(float(a[15]), float(b[15])) for a, b in zip(several, single, strict=True)]
        assert sum(a for a, _ in half) <= 1.1 * sum(b for _, b in half)


def test_twins_of_a_really_large_group_do_not_go_together():
    # 300 units, so two go in a step: the twins' costs are the two lowest.
    one = reader(0, 299, 1, mixed=False)
    found = eliminate([with_twin(one, 299, 1)], 300, ridge=1e-6)
    order = found.order.tolist()
    assert order[0] in (0, 299)
    assert order[1] not in (0, 299)
