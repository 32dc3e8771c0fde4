"""How a budget becomes counts, where groups keep multiples only."""

import pytest
import torch

import tiny
from coprune.budget.counts import Budget, OutOfReachError
from coprune.budget.decide import counts

SIZES = {"a": 8, "b": 8, "c": 6}


def curves(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.cat([torch.rand(size, generator=generator).double().cumsum(0).flip(0), torch.zeros(1)])
        for name, size in SIZES.items()
    }


def heads_of(share, round_to):
    cost = tiny.NoCost((), SIZES)
    found, why = counts(
        Budget(keep_heads=share), cost, [], allocation="measured", curves=curves(), round_to=round_to
    )
    assert why == f"keep_heads={share:g} asks for it"
    return found


@pytest.mark.parametrize(
    ("share", "step", "total"),
    [(0.3, 1, 7), (0.3, 2, 7), (0.5, 1, 11), (0.5, 2, 11), (0.75, 4, 16), (1.0, 1, 22), (1.0, 4, 22)],
)
def test_heads_come_to_the_share_and_rounded_ones_to_no_more(share, step, total):
    found = heads_of(share, step)
    assert all(k % step == 0 or k == SIZES[name] for name, k in found.items())
    # Not one step more would have fitted.
    assert total - step < sum(found.values()) <= total


def test_fewer_heads_than_steps_allow_are_refused_with_the_least():
    # Once a bug: the least of every group was handed back, more than was asked for, and nobody said so.
    with pytest.raises(OutOfReachError, match=r"4 in each of 3 groups is 0\.545 of all 22"):
        heads_of(0.3, 4)
