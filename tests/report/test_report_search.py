"""The search for a budget on the page: intervals, the chosen size, the limit, and older runs."""

from __future__ import annotations

import re

import pytest
import report_samples as samples

from coprune.report import formatting as words
from coprune.report import render, search


def page_of(folder, probes, budget="max_drop=1"):
    plan = samples.plan(method="complementary", budget=budget)
    return render(folder(plan, samples.result(plan, search=tuple(probes))))


def table_of(text):
    """Rows of the search's table as lists of text."""
    section = text[text.index("The search for the budget") : text.index("Left alone")]
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", section)
    return [re.sub(r"<[^>]+>", "|", row).replace(words.NB, " ").strip("|").split("||") for row in rows]


def test_intervals_the_chosen_one_and_the_limit(folder, own, drawn):
    page = page_of(folder, samples.PROBES)
    near, whole = (drawn(page)[f"search/{view}"] for view in ("near", "all"))
    assert near["layout"]["shapes"][0]["y0"] == pytest.approx(93)  # the base, 94 %, less the allowed point
    assert near["layout"]["yaxis"]["range"][0] > 91
    assert "range" not in whole["layout"]["yaxis"]
    _, good, refused, chosen = near["data"]
    assert (good["x"], refused["x"], chosen["x"]) == ([63, 75, 100], [3, 50], [63])
    assert chosen["error_y"]["array"] == pytest.approx([0.4])  # 0.2 points lost, at least −0.2
    assert chosen["error_y"]["arrayminus"] == pytest.approx([0.5])
    assert "points lost: 0.20 (−0.20 to 0.70)<br>chosen" in chosen["hovertext"][0]
    text = own(page)
    assert table_of(text) == [
        ["1", "100.0 %", "94.00 %", "0.00 (0.00 to 0.00)", "within the allowed drop"],
        ["2", "3.0 %", "10.20 %", "83.80 (81.10 to 86.50)", "refused"],
        ["3", "50.0 %", "92.50 %", "1.50 (0.90 to 2.10)", "refused"],
        ["4", "75.0 %", "94.10 %", "−0.10 (−0.50 to 0.30)", "within the allowed drop"],
        ["5", "63.0 %", "93.80 %", "0.20 (−0.20 to 0.70)", "|chosen"],
    ]
    assert "5 sizes were tried" in text
    assert "Whiskers: 80 % interval of the true loss, which is below the upper end with 90 %" in text
    assert "The allowed drop is 1 point." in text


def test_a_run_from_before_there_were_intervals(folder, own, drawn):
    old = [
        {"macs": 1.0, "value": 0.94, "ok": True},
        {"macs": 0.5, "value": 0.935, "ok": True},
        {"macs": 0.25, "value": 0.9, "ok": False},
    ]
    page = page_of(folder, old, "max_drop=0.5, keep_units=0.9")
    found = drawn(page)["search/near"]
    assert found["layout"]["shapes"][0]["y0"] == pytest.approx(93.5)
    assert not any("error_y" in trace for trace in found["data"])
    assert [row[3:] for row in table_of(own(page))] == [
        ["0.00", "within the allowed drop"],
        ["0.50", "within the allowed drop"],
        ["4.00", "refused"],
    ]
    assert "Whiskers: 95" not in own(page)
    assert "The allowed drop is 0.5 points." in own(page)


def test_odd_probes_do_no_harm(folder, own):
    odd = [
        {"macs": "all", "value": 0.9},
        {"value": 0.9},
        {"macs": True, "value": 0.9},
        {"macs": 0.6, "value": 0.9, "drop": "much", "low": 1, "high": 2, "chosen": "yes"},
        {"macs": 0.5, "value": 0.9, "drop": 3.0, "low": 4.0, "high": 5.0},
        {"macs": 0.4, "value": 0.9, "drop": 3.0, "low": None, "high": 5.0, "chosen": True},
    ]
    page = page_of(folder, odd, "keep_macs=0.5")
    assert [row[3:] for row in table_of(own(page))] == [
        ["3.00", "refused"],
        ["3.00", "|chosen, beyond the allowed drop"],
    ]


def test_not_a_number_is_left_out():
    plan = samples.plan(budget="max_drop=2e-1")
    nan, inf = float("nan"), float("inf")
    given = (
        {"macs": nan, "value": 0.9},
        {"macs": 0.5, "value": 0.9, "drop": inf},
        {"macs": 0.5, "value": 0.8},
    )
    found = search.read(plan, samples.result(plan, search=given))
    assert found.limit == 0.2
    assert [(p.macs, p.value, p.drop) for p in found.probes] == [(0.5, 0.8, None)]
    assert found.base is None
    assert found.lost(found.probes[0]) == "–"


def test_no_search_no_section(folder, own):
    assert "The search for the budget" not in own(page_of(folder, []))


def test_a_knee_allows_and_refuses_nothing(folder, own):
    probes = [{"macs": m, "value": v, "ok": True, "chosen": m == 0.5} for m, v in ((1, 0.94), (0.5, 0.93))]
    text = own(page_of(folder, probes, "the knee of its curve"))
    assert [row[4] for row in table_of(text)] == ["tried", "|chosen"]
    section = text[text.index("sizes were tried") : text.index("Left alone")]
    assert "allowed" not in section
    assert "refused" not in section
