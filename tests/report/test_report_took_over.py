"""Who took over what the removed units said: the sentences, and what the page draws from."""

from __future__ import annotations

import json

import pytest
import report_samples as samples
from plotly.offline import get_plotlyjs

from coprune.plan import GroupDecision, Prediction
from coprune.report import formatting as words
from coprune.report import groups, render
from coprune.report import redundancy as took_over


def group(*entries, size=8, kept=(3, 7), name="a") -> GroupDecision:
    """A decision from (unit, explained, parts)."""
    took = tuple(Prediction(unit=u, explained=e, by=tuple(parts)) for u, e, parts in entries)
    return GroupDecision(name=name, members=(), size=size, kept=kept, reason="", predicted=took)


HALF = group(
    (0, 0.94, [(3, 0.61), (7, 0.33)]),
    (1, 0.41, [(7, 0.3), (3, 0.11)]),
    (2, 1.0, [(3, 1.0)]),
    (4, 0.8996, [(3, 0.8996)]),
    (5, 0.9, [(7, 0.9)]),
    (6, 0.0, []),
)


def said(decision, unit="channel"):
    return took_over.about_group(decision, unit).replace(words.NB, " ")


def test_the_summary_of_a_group_by_hand():
    assert said(HALF) == (
        "The kept channels say at least 90 % of what 3 of the 6 removed ones said; "
        "least explained: channel 6 (0 %), 1 (41 %) and 4 (89.9 %)."
    )


@pytest.mark.parametrize(
    ("entries", "kept", "says"),
    [
        (
            [(0, 0.99, []), (1, 0.95, [])],
            (2, 3),
            "The kept heads say at least 90 % of what each of the 2 removed ones said; "
            "least explained: head 1 (95 %).",
        ),
        (
            [(0, 0.2, []), (1, 0.3, [])],
            (2, 3),
            "The kept heads say less than 90 % of what any of the 2 removed ones said; "
            "least explained: head 0 (20 %) and 1 (30 %).",
        ),
        ([(1, 0.996, [])], (0, 2, 3), "The kept heads say 99.6 % of what the removed one said."),
        (
            [(1, 0.95, [])],
            (2,),
            "The kept heads say at least 90 % of what 1 of the 3 removed ones said; "
            "least explained: head 1 (95 %). About 2 of them the plan does not say it.",
        ),
        ([], (0, 1), ""),
    ],
)
def test_other_summaries(entries, kept, says):
    assert said(group(*entries, size=4, kept=kept), "head") == says


def test_best_explained_first_in_per_mille():
    assert took_over.view(HALF) == [
        [2, 1000, 3, 1000],
        [0, 940, 3, 610, 7, 330],
        [5, 900, 7, 900],
        [4, 899, 3, 900],
        [1, 410, 7, 300, 3, 110],
        [6, 0],
    ]


def test_small_parts_and_all_beyond_the_foremost_are_left_out():
    kept = tuple(range(20))
    parts = [(u, 0.03 + u / 1000) for u in kept] + [(0, 0.5)]
    (row,) = took_over.view(group((20, 0.9, parts), size=21, kept=kept))
    # The second part of unit 0 counts: 0.5; then 19, 18 and so on.
    assert row[:6] == [20, 900, 0, 500, 19, 49]
    assert len(row) == 2 + 2 * 12
    (row,) = took_over.view(group((0, 0.5, [(3, 0.0099), (7, 0.01)])))
    assert row == [0, 500, 7, 10]


def test_a_foreign_plan_is_cleaned():
    odd = group(
        (0, 0.5, [(1, 0.3), (99, 0.2), (3, float("nan")), (7, -0.2), (3, 0.4)]),
        (0, 0.9, [(3, 0.9)]),  # again
        (3, 0.9, [(7, 0.9)]),  # stays
        (8, 0.9, [(7, 0.9)]),  # does not exist
    )
    assert took_over.view(odd) == [[0, 500, 3, 400]]
    assert took_over.view(group((8, 0.9, []))) == []
    assert groups.view(group((8, 0.9, [])))["took_summary"] == ""


def test_the_page_sums_up_all_groups(folder, own, drawn_from):
    plan = samples.plan([HALF, group((0, 0.97, []), size=3, kept=(1, 2), name="<b>")], method="complementary")
    page = render(folder(plan, samples.result(plan)))
    assert (
        "The kept channels say at least 90 % of what 4 of the 7 removed ones said; "
        "least explained: channel 6 of a (0 %)."
    ) in own(page).replace(words.NB, " ")
    data = drawn_from(page)
    assert data["groups"][0]["took_summary"].replace(words.NB, " ") == said(HALF)
    assert data["groups"][0]["took"] == took_over.view(HALF)


def test_groups_without_it_keep_their_view(folder, own, drawn_from):
    plan = samples.plan()
    page = render(folder(plan, samples.result(plan)))
    group = drawn_from(page)["groups"][0]
    assert (group["took"], group["took_summary"]) == ([], "")
    assert len(group["stand"]) == group["size"]
    assert "removed ones said" not in own(page)


def test_took_over_replaces_stand_ins():
    both = samples.clustered("a", 16)
    gone = min(set(range(16)) - set(both.kept))
    took = (Prediction(unit=gone, explained=0.5),)
    assert groups.view(both.model_copy(update={"predicted": took}))["stand"] == []


def test_a_falling_curve_is_put_in_order_and_not_a_number_left_out():
    falling = samples.complementary("a", 16)
    curve = groups.view(falling)["curve"]
    assert [k for k, _ in curve] == list(range(1, 17))
    assert curve[0][1] > curve[7][1] > curve[15][1] == 0
    broken = {
        "curve": ((2, float("nan")), (1, 0.5)),
        "score": (float("inf"),) * 16,
        "position": ((0.0, float("nan")),) * 16,
    }
    seen = groups.view(falling.model_copy(update=broken))
    assert (seen["curve"], seen["score"], seen["position"]) == ([[1, 0.5]], [], [])


@pytest.mark.parametrize("keep", [0.2, 0.5])
def test_512_units_in_20_groups_stay_small(folder, keep):
    made = [samples.complementary(f"features.{i}.conv", 512, keep=keep, listed=40) for i in range(20)]
    plan = samples.plan(made, method="complementary")
    page = render(folder(plan, samples.result(plan)))
    assert len(page.encode()) - len(get_plotlyjs().encode()) < 1_500_000


def test_shares_in_words():
    given = [0.0, 0.004, 0.41, 0.894, 0.896, 0.8999, 0.9, 0.904, 0.9949, 0.9951, 0.99999, 1.0]
    assert [words.share(s).replace(words.NB, " ") for s in given] == [
        *("0 %", "0 %", "41 %", "89 %", "89.6 %", "89.9 %", "90 %", "90 %"),
        *("99 %", "99.5 %", "99.9 %", "100 %"),
    ]


def test_a_name_in_the_plan_cannot_leave_the_data(folder, drawn_from):
    evil = samples.complementary("</script><b>", 16)
    plan = samples.plan([evil], method="complementary")
    page = render(folder(plan, samples.result(plan)))
    assert "</script><b>" not in page
    assert json.dumps(drawn_from(page)["groups"][0]["name"]) == '"</script><b>"'
