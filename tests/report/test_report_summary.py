"""The summary against figures worked out by hand."""

import math

import pytest

from coprune.comparison import Comparison
from coprune.report import render_compare, summarise


def row(method, budget, seed, recovery="ls", **stages):
    values = {"pruned": None, "recovered": None, "finetuned": None, **stages}
    return {
        "method": method,
        "budget": budget,
        "seed": seed,
        "macs_ratio": 0.5 + seed / 100,
        "recovery": recovery,
        **values,
    }


def test_mean_and_sample_deviation_by_hand():
    rows = [
        row("a", 0.5, s, pruned=p, finetuned=f) for s, p, f in ((0, 0.1, 0.9), (1, 0.2, 0.92), (2, 0.6, 0.94))
    ]
    (only,) = summarise({"rows": rows})
    assert (only["budget"], only["method"], only["recovery"], only["seeds"]) == (0.5, "a", "ls", 3)
    assert only["macs_ratio"] == pytest.approx(0.51)
    # pruned: mean .3, deviations −.2, −.1, .3, squares .04 + .01 + .09 = .14, over n − 1 = 2
    assert only["pruned"] == pytest.approx((0.3, math.sqrt(0.07)))
    assert only["finetuned"] == pytest.approx((0.92, 0.02))
    assert only["recovered"] is None


def test_one_seed_has_no_spread_and_a_missing_seed_is_left_out():
    (one,) = summarise({"rows": [row("a", 0.5, 0, recovered=0.8)]})
    assert one["recovered"] == (0.8, 0.0)
    (two,) = summarise({"rows": [row("a", 0.5, 0, recovered=0.8), row("a", 0.5, 1)]})
    assert (two["seeds"], two["recovered"]) == (2, (0.8, 0.0))


def test_order_is_knee_first_then_budget_down_then_the_last_stage_down():
    rows = [
        row("slow", 0.25, 0, finetuned=0.7),
        row("good", 0.25, 0, pruned=0.1, finetuned=0.9),
        row("plain", 0.5, 0, recovered=0.6),
        row("plain", 0.5, 0, recovery="none", pruned=0.65),
        row("unmeasured", 0.5, 0),
        row("cosep", "knee", 0, finetuned=0.5),
        row("good", "0.5", 0, finetuned=0.95),
    ]
    found = [(r["budget"], r["method"], r["recovery"]) for r in summarise({"rows": rows})]
    assert found == [
        ("knee", "cosep", "ls"),
        (0.5, "good", "ls"),
        (0.5, "plain", "none"),
        (0.5, "plain", "ls"),
        (0.5, "unmeasured", "ls"),
        (0.25, "good", "ls"),
        (0.25, "slow", "ls"),
    ]


def test_training_that_diverged_with_one_seed_has_no_mean_over_the_others_and_comes_last():
    rows = [
        row("lucky", 0.5, 0, recovered=0.9, finetuned=0.98765),
        row("lucky", 0.5, 1, recovered=0.9),
        *(row("steady", 0.5, seed, recovered=0.7, finetuned=0.8) for seed in (0, 1)),
    ]
    first, last = summarise({"rows": rows})
    assert (first["method"], first["finetuned"]) == ("steady", (pytest.approx(0.8), 0.0))
    assert (last["method"], last["recovered"], last["finetuned"]) == ("lucky", (0.9, 0.0), None)
    # The page draws no such point, crowns it nowhere and gives no change.
    page = render_compare(
        Comparison.model_validate(
            {"schema": 1, "base": {"value": 0.95, "macs": 10, "params": 5}, "rows": rows}
        )
    )
    assert "98.765" not in page
    assert "98.77" not in page
    assert "Steady comes first" in page or "steady comes first" in page


def test_a_budget_as_text_and_as_number_is_one_budget():
    (both,) = summarise({"rows": [row("a", 0.5, 0, pruned=0.2), row("a", "0.50", 1, pruned=0.4)]})
    assert both["seeds"] == 2
    assert both["pruned"][0] == pytest.approx(0.3)


def test_nothing_compared():
    assert summarise({"rows": []}) == []
