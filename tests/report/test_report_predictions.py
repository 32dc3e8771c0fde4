"""How well the kept units predict the removed ones: the sentences, and what the page draws from."""

from __future__ import annotations

import re

import pytest
import report_samples as samples

from coprune.plan import GroupDecision, Prediction
from coprune.report import formatting as words
from coprune.report import groups, predictions, render


def group(*entries, size=8, kept=(3, 7), name="a") -> GroupDecision:
    """A decision from (unit, explained, parts)."""
    took = tuple(Prediction(unit=u, explained=e, by=tuple(parts)) for u, e, parts in entries)
    return GroupDecision(name=name, members=(), size=size, kept=kept, reason="", predicted=took)


def shown(decision):
    """Unit, explained and parts of what can be shown."""
    return [(e.unit, e.explained, *e.by) for e in predictions.shown(decision)]


HALF = group(
    (0, 0.94, [(3, 0.61), (7, 0.33)]),
    (1, 0.41, [(7, 0.3), (3, 0.11)]),
    (2, 1.0, [(3, 1.0)]),
    (4, 0.8996, [(3, 0.8996)]),
    (5, 0.9, [(7, 0.9)]),
    (6, 0.0, []),
)


def said(decision, units="channels"):
    return predictions.summary([groups.fitted(decision)], units).replace(words.NB, " ")


def test_the_summary_of_a_group_by_hand():
    assert said(HALF) == (
        "The kept channels predict at least 90 % of 3 of the 6 removed ones; "
        "least predicted: channel 6 (0 %), 1 (41 %) and 4 (89.9 %)."
    )


@pytest.mark.parametrize(
    ("entries", "kept", "says"),
    [
        (
            [(0, 0.99, []), (1, 0.95, [])],
            (2, 3),
            "The kept heads predict at least 90 % of each of the 2 removed ones; "
            "least predicted: head 1 (95 %).",
        ),
        (
            [(0, 0.2, []), (1, 0.3, [])],
            (2, 3),
            "None of the 2 removed heads is predicted to 90 % by the kept ones; "
            "least predicted: head 0 (20 %) and 1 (30 %).",
        ),
        ([(1, 0.996, [])], (0, 2, 3), "The kept heads predict 99.6 % of the removed one."),
        (
            [(1, 0.95, [])],
            (2,),
            "The kept heads predict at least 90 % of 1 of the 3 removed ones; "
            "least predicted: head 1 (95 %). The plan says nothing of 2 of them.",
        ),
        ([], (0, 1), ""),
    ],
)
def test_other_summaries(entries, kept, says):
    assert said(group(*entries, size=4, kept=kept), "heads") == says


def test_best_predicted_first():
    assert shown(HALF) == [
        (2, 1.0, (3, 1.0)),
        (0, 0.94, (3, 0.61), (7, 0.33)),
        (5, 0.9, (7, 0.9)),
        (4, 0.8996, (3, 0.8996)),
        (1, 0.41, (7, 0.3), (3, 0.11)),
        (6, 0.0),
    ]


def test_small_parts_and_all_beyond_the_foremost_are_left_out():
    kept = tuple(range(20))
    parts = [(u, 0.03 + u / 1000) for u in kept] + [(0, 0.5)]
    (row,) = shown(group((20, 0.9, parts), size=21, kept=kept))
    # The second part of unit 0 counts: 0.5; then 19, 18 and so on.
    assert row[:4] == (20, 0.9, (0, 0.5), (19, 0.049))
    assert len(row) == 2 + 6
    (row,) = shown(group((0, 0.5, [(3, 0.0099), (7, 0.01)])))
    assert row == (0, 0.5, (7, 0.01))


def test_a_foreign_plan_is_cleaned():
    odd = group(
        (0, 0.5, [(1, 0.3), (99, 0.2), (3, float("nan")), (7, -0.2), (3, 0.4)]),
        (0, 0.9, [(3, 0.9)]),  # again
        (3, 0.9, [(7, 0.9)]),  # stays
        (8, 0.9, [(7, 0.9)]),  # does not exist
    )
    assert shown(odd) == [(0, 0.5, (3, 0.4))]
    assert shown(group((8, 0.9, []))) == []
    assert said(group((8, 0.9, []))) == ""


def test_the_page_sums_up_all_groups(folder, own, drawn):
    plan = samples.plan([HALF, group((0, 0.97, []), size=3, kept=(1, 2), name="<b>")], method="complementary")
    page = render(folder(plan, samples.result(plan)))
    assert (
        "The kept channels predict at least 90 % of 4 of the 7 removed ones; "
        "least predicted: channel 6 of a (0 %)."
    ) in own(page).replace(words.NB, " ")
    assert said(HALF) in own(page).replace(words.NB, " ")
    cells, bars, lost = drawn(page)["0/predictions"]["data"]
    assert (bars["x"], bars["y"]) == (["2", "0", "5", "4", "1", "6"], [100, 94, 90, 90, 41, 0])
    assert lost["y"] == [0, 6, 10, 10, 59, 100]
    found = [(r, k, z) for r, k, z in zip(cells["x"], cells["y"], cells["z"], strict=True) if z is not None]
    assert found[:3] == [("2", "3", 100), ("0", "3", 61), ("0", "7", 33)]
    assert bars["hovertext"][1].replace(words.NB, " ") == "channel 0: 3 and 7 predict 94 % of it"


def test_groups_without_predictions(folder, own, drawn):
    plan = samples.plan()
    page = render(folder(plan, samples.result(plan)))
    found = drawn(page)
    assert "0/predictions" not in found
    assert any("represented by channel" in text for text in found["0/plane"]["data"][1]["hovertext"])
    assert "predict" not in re.sub("<s(tyle|cript).*?</s(tyle|cript)>", "", own(page), flags=re.DOTALL)


def test_predictions_replace_representatives_of_clusters():
    both = samples.clustered("a", 16)
    gone = min(set(range(16)) - set(both.kept))
    took = (Prediction(unit=gone, explained=0.5, by=((both.kept[1], 0.4),)),)
    found = groups.representatives(both.model_copy(update={"predicted": took}))
    assert found[gone] == both.kept[1]
    assert {by for unit, by in enumerate(found) if unit not in both.kept} == {both.kept[1], None}


def test_a_falling_curve_is_put_in_order():
    falling = samples.complementary("a", 16)
    curve = groups.fitted(falling).curve
    assert [k for k, _ in curve] == list(range(1, 17))
    assert curve[0][1] > curve[7][1] > curve[15][1] == 0


@pytest.mark.parametrize("keep", [0.2, 0.5])
def test_512_units_in_20_groups_stay_small(folder, keep):
    made = [samples.complementary(f"features.{i}.conv", 512, keep=keep, listed=40) for i in range(20)]
    plan = samples.plan(made, method="complementary")
    page = render(folder(plan, samples.result(plan)))
    assert len(page.encode()) < 6_000_000


def test_shares_in_words():
    given = [0.0, 0.004, 0.41, 0.894, 0.896, 0.8999, 0.9, 0.904, 0.9949, 0.9951, 0.99999, 1.0]
    assert [words.share(s).replace(words.NB, " ") for s in given] == [
        *("0 %", "0 %", "41 %", "89 %", "89.6 %", "89.9 %", "90 %", "90 %"),
        *("99 %", "99.5 %", "99.9 %", "100 %"),
    ]


def test_a_name_in_the_plan_cannot_leave_the_data(folder, drawn):
    evil = samples.complementary("</script><b>", 16)
    plan = samples.plan([evil], method="complementary")
    page = render(folder(plan, samples.result(plan)))
    assert "</script><b>" not in page
    assert drawn(page)["overview/share"]["data"][0]["y"] == ["</script><b>"]
