"""Shares of a pass: together they are the whole, in the batches of one process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.data import ArraySource, LoaderSource
from coprune.data.sharding import own_batches, own_steps
from coprune.distributed.world import Place, here, own, own_part, own_range, settle
from coprune.recovery.sampling import own_samples
from coprune.training.loop import _weight


def everyone(world, action):
    before = here()
    try:
        found = []
        for rank in range(world):
            settle(Place(rank, world))
            found.append(action())
        return found
    finally:
        settle(before)


def source(samples):
    return ArraySource(torch.arange(float(samples)).view(-1, 1, 1, 1), torch.arange(samples))


@given(samples=st.integers(1, 40), size=st.integers(1, 9), world=st.integers(1, 5), loader=st.booleans())
def test_batches_are_those_of_one_process(samples, size, world, loader):
    images = source(samples)
    shared = LoaderSource(list(images.batches(size)), samples) if loader else images
    shares = everyone(world, lambda: list(own_batches(shared, size)))
    assert [len(s) for s in shares] == everyone(world, lambda: own_steps(shared, size))
    alone = list(images.batches(size))
    for batch in (batch for share in shares for batch in share):
        inputs, labels = alone[batch.number]
        assert torch.equal(batch.inputs, inputs)
        assert torch.equal(batch.labels, labels)
        assert batch.start == int(labels[0])
    assert sorted(b.number for share in shares for b in share) == list(range(len(alone)))


@given(samples=st.integers(1, 60), world=st.integers(1, 5), chosen=st.sets(st.integers(0, 9)))
def test_chosen_batches_are_shared_out_evenly(samples, world, chosen):
    numbers = sorted(n for n in chosen if n < -(-samples // 6))
    shares = everyone(world, lambda: [b.number for b in own_batches(source(samples), 6, chosen=numbers)])
    assert sorted(n for share in shares for n in share) == numbers
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(count=st.integers(0, 50), world=st.integers(1, 6))
def test_shares_add_up(count, world):
    assert [i for part in everyone(world, lambda: own_range(count)) for i in part] == list(range(count))
    assert sorted(i for part in everyone(world, lambda: own(range(count))) for i in part) == list(
        range(count)
    )


@given(samples=st.integers(1, 50), world=st.integers(1, 6))
def test_gradients_weigh_as_many_samples_as_they_are_of(samples, world):
    parts = everyone(world, lambda: (own_part(samples), _weight(samples)))
    # Averaged over the processes, a sample's gradient has the weight 1 / samples.
    for part, weight in parts:
        count = len(range(*part.indices(samples)))
        assert count
        if weight:
            assert weight / count / world == pytest.approx(1 / samples)
    assert sum(weight for _, weight in parts) == pytest.approx(world)


@given(samples=st.integers(1, 30), size=st.integers(1, 9), world=st.integers(1, 4), skip=st.integers(0, 2))
def test_a_step_of_training_is_on_the_same_batch(samples, size, world, skip):
    def steps():
        return list(source(samples).epoch(size, seed=3, epoch=1, skip=skip))

    alone = steps()
    for rank, shares in enumerate(everyone(world, steps)):
        for (inputs, labels), (every, wanted) in zip(shares, alone, strict=True):
            assert torch.equal(labels, wanted)
            assert torch.equal(inputs, every[rank::world] if rank < len(wanted) else every[:1])


@given(samples=st.integers(1, 80), world=st.integers(1, 5))
def test_samples_of_the_walk(samples, world):
    shares = everyone(world, lambda: own_samples(samples))
    judging = max(1, samples // 8)
    if not shares[0][2]:
        assert all(len(numbers) == samples and judges == judging for numbers, judges, _ in shares)
        return
    solved = [i for numbers, judges, _ in shares for i in numbers[: len(numbers) - judges].tolist()]
    judged = [i for numbers, judges, _ in shares for i in numbers[len(numbers) - judges :].tolist()]
    assert solved + judged == list(range(samples))
    assert len(judged) == judging
