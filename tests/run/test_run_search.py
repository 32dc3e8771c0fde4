"""The search of ``--max-drop`` on curves that are known, also on curves that do not fall steadily."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coprune.plan import GroupDecision
from coprune.run.search import search_budget


def decisions(share: float) -> tuple[float, tuple[GroupDecision, ...]]:
    """One group of 100 units; its cost is its size."""
    kept = max(1, round(share * 100))
    return kept / 100, (
        GroupDecision(name="g", members=(), size=100, kept=tuple(range(kept)), reason="test"),
    )


def run(curve: Callable[[float], float], max_drop: float):
    return search_budget(
        0.01, curve(1.0), max_drop, decide=decisions, judge=lambda d: curve(len(d[0].kept) / 100)
    )


@pytest.mark.parametrize("limit", [0.5, 1.0, 3.0])
def test_finds_the_edge_of_a_falling_curve(limit):
    found = run(lambda share: 0.9 - 0.1 * (1 - share) ** 2, limit)
    edge = 1 - (limit / 10) ** 0.5
    assert len(found.decisions[0].kept) / 100 == pytest.approx(edge, abs=0.02)


def test_everything_goes_in_one_probe():
    found = run(lambda share: 0.9, 0.0)
    assert len(found.decisions[0].kept) == 1
    assert len(found.probes) == 2


def test_nothing_goes_when_every_probe_loses():
    found = run(lambda share: 0.9 if share == 1.0 else 0.2, 5.0)
    assert len(found.decisions[0].kept) == 100
    assert [p.ok for p in found.probes] == [True] + [False] * (len(found.probes) - 1)


@given(st.dictionaries(st.integers(1, 100), st.floats(0, 1), min_size=100, max_size=100), st.floats(0, 50))
def test_never_hands_back_more_loss_than_allowed(values, limit):
    found = run(lambda share: values[round(share * 100)], limit)
    lost = values[100] - values[len(found.decisions[0].kept)]
    assert lost * 100 <= limit + 1e-6
    accepted = [p.macs for p in found.probes if p.ok]
    assert len(found.decisions[0].kept) / 100 == pytest.approx(min(accepted))
