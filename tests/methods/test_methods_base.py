"""Rankings and groups that a method leaves alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.methods.base import Ranking, Untouched


@given(score=st.lists(st.integers(0, 5), min_size=1, max_size=12), data=st.data())
def test_a_ranking_keeps_the_highest_and_the_first_of_equals(score, data):
    k = data.draw(st.integers(1, len(score)))
    kept = Ranking(tiny.group(len(score)), torch.tensor(score).double(), "score").keep(k, why="test").kept
    wanted = sorted(sorted(range(len(score)), key=lambda u: (-score[u], u))[:k])
    assert list(kept) == wanted


def test_a_ranking_tells_its_scores_and_reason():
    decision = Ranking(tiny.group(3), torch.tensor([0.5, 2.0, 1.0]).double(), "size of the filter").keep(
        2, why="asked"
    )
    assert decision.kept == (1, 2)
    assert decision.score == (0.5, 2.0, 1.0)
    assert decision.reason == "the 2 of 3 with the highest size of the filter; asked"
    assert decision.knee is None


@pytest.mark.parametrize("k", [1, 4])
def test_an_untouched_group_stays_whole_and_says_why(k):
    decision = Untouched(tiny.group(4), "nothing to rank by").keep(k, why="asked")
    assert decision.kept == (0, 1, 2, 3)
    assert "nothing to rank by" in decision.reason
