"""The page of a comparison."""

from __future__ import annotations

import json
import re

import pytest
import report_samples as samples

from coprune.errors import UserError
from coprune.report import render_compare, words, write_compare


def test_every_row_is_there_best_first(own):
    page = own(render_compare(samples.comparison())).replace(words.NB, " ")
    half = page[page.index("Budget: keep 50 %") : page.index("Budget: keep 25 %")]
    names = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', half)
    assert names[0] == ("Complementary pruning", "ls")
    assert names[-1] == ("Magnitude (L1)", "none")
    assert len(names) == 6
    assert page.index("Budget: knee") < page.index("Budget: keep 50 %")
    assert "5 methods at 3 budgets: Complementary pruning comes first at 2 of 3." in page


def test_points_are_mean_least_and_greatest(drawn_from):
    rows = [
        {"method": "a", "budget": 0.5, "seed": s, "macs_ratio": 0.5, "pruned": p, "recovery": "ls"}
        for s, p in enumerate((0.2, 0.3, 0.7))
    ]
    base = {"value": 0.9, "macs": 10, "params": 5}
    (line,) = drawn_from(render_compare({"schema": 1, "base": base, "rows": rows}))["series"]
    (point,) = line["points"]["pruned"]
    assert (point["low"], point["high"], point["seeds"]) == (0.2, 0.7, 3)
    assert point["mean"] == pytest.approx(0.4)
    assert list(line["points"]) == ["pruned"]


def test_hostile_method_names_stay_text(own):
    compare = samples.comparison()
    for row in compare["rows"]:
        row["method"] = row["recovery"] = "</script><b>"
    page = render_compare(compare)
    assert "</script><b>" not in own(page)


def test_write_reads_the_folder(tmp_path):
    (tmp_path / "compare.json").write_text(json.dumps(samples.comparison()))
    assert write_compare(tmp_path).read_text().startswith("<!doctype html>")


def test_nothing_compared_is_still_a_page(tmp_path, own):
    assert "Nothing was compared" in own(render_compare({**samples.comparison(), "rows": []}))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "truncated"),
        ("[]", "not a comparison"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1}', "not a valid comparison: base"),
    ],
)
def test_a_foreign_file_is_one_clear_line(tmp_path, content, says):
    (tmp_path / "compare.json").write_text(content)
    with pytest.raises(UserError, match=says):
        write_compare(tmp_path)
