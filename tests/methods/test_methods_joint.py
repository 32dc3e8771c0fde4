"""A ranking over all groups: the highest scores anywhere, and one unit a group."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.methods.joint import JointRanking


def ranking(*scores):
    groups = tuple(tiny.group(len(s), f"layer{i}") for i, s in enumerate(scores))
    return JointRanking(groups, tuple(torch.tensor(s, dtype=torch.float64) for s in scores), "weight")


def kept(choice, k):
    return [d.kept for d in choice.keep(k, why="asked")]


def test_the_highest_of_all_groups_stay_and_every_group_keeps_its_best():
    choice = ranking([0.9, 0.8, 0.7], [0.1, 0.2], [0.5, 0.6, 0.4])
    assert kept(choice, 3) == [(0,), (1,), (1,)]
    assert kept(choice, 4) == [(0, 1), (1,), (1,)]
    assert kept(choice, 5) == [(0, 1, 2), (1,), (1,)]
    assert kept(choice, 6) == [(0, 1, 2), (1,), (0, 1)]
    assert kept(choice, 8) == [(0, 1, 2), (0, 1), (0, 1, 2)]


@pytest.mark.parametrize("k", [1, 2])
def test_fewer_units_than_groups_leave_one_in_each(k):
    assert kept(ranking([1.0, 2.0], [3.0, 4.0], [5.0]), k) == [(1,), (1,), (0,)]


def test_of_equals_the_first_stays():
    choice = ranking([1.0, 1.0, 1.0], [1.0, 1.0])
    assert kept(choice, 2) == [(0,), (0,)]
    assert kept(choice, 4) == [(0, 1, 2), (0,)]


def test_the_reason_says_what_was_kept_and_who_asked():
    first, second = ranking([3.0, 1.0], [2.0, 0.0]).keep(3, why="asked")
    assert first.score == (3.0, 1.0)
    assert first.reason == (
        "2 of 2 here, 3 of 4 in all layers, with the highest weight (every layer keeps its best); asked"
    )
    assert second.reason.startswith("1 of 2 here, 3 of 4 in all layers")
    assert (first.name, second.name) == ("layer0", "layer1")


@given(scores=st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=5), min_size=1, max_size=4))
def test_a_twin_that_picks_one_at_a_time_agrees_and_more_include_the_fewer(scores):
    choice = ranking(*scores)
    units = [(-s, g, u) for g, row in enumerate(scores) for u, s in enumerate(row)]
    best = [min(x for x in units if x[1] == g) for g in range(len(scores))]
    order = [*best, *sorted(x for x in units if x not in best)]
    found = []
    for k in range(len(scores), len(units) + 1):
        here = {(g, u) for g, d in enumerate(choice.keep(k, why="")) for u in d.kept}
        assert here == {(g, u) for _, g, u in order[:k]}
        found.append(here)
    assert all(a < b for a, b in itertools.pairwise(found))
