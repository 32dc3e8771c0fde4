"""The page of a comparison."""

from __future__ import annotations

import json
import re

import pytest
import report_samples as samples

from coprune.comparison import Comparison
from coprune.errors import UserError
from coprune.report import compare as page_of_comparison
from coprune.report import formatting as words
from coprune.report import write_compare

ROWS = re.compile(r'<th scope="row">(.*?)</th><td>–</td><td>(.*?)</td>')
"""Method and recovery of the rows of files that do not say how they shared out."""


def render_compare(content: dict) -> str:
    return page_of_comparison.render_compare(Comparison.model_validate(content))


def test_every_row_is_there_best_first(own):
    page = own(render_compare(samples.comparison())).replace(words.NB, " ")
    half = page[page.index("Budget: keep 50 %") : page.index("Budget: keep 25 %")]
    names = ROWS.findall(half)
    assert names[0] == ("Complementary pruning", "least squares")
    assert names[-1] == ("Magnitude (L1)", "none")
    assert len(names) == 6
    assert page.index("Budget: knee") < page.index("Budget: keep 50 %")
    assert "5 methods at 3 budgets: Complementary pruning comes first at 2 of 3." in page


def test_points_are_mean_least_and_greatest(drawn):
    rows = [
        {"method": "a", "budget": 0.5, "seed": s, "macs_ratio": 0.5, "pruned": p, "recovery": "ls"}
        for s, p in enumerate((0.2, 0.3, 0.7))
    ]
    base = {"value": 0.9, "macs": 10, "params": 5}
    found = drawn(render_compare({"schema": 1, "base": base, "rows": rows}))
    assert [name for name in found if name != "theme"] == ["results/pruned"]
    (line,) = found["results/pruned"]["data"]
    assert (line["x"], line["y"]) == ([50], [pytest.approx(40)])
    assert line["error_y"]["array"] == [pytest.approx(30)]
    assert line["error_y"]["arrayminus"] == [pytest.approx(20)]
    assert "(20.00 – 70.00, 3 seeds)" in line["hovertext"][0]


def rows_of(*given):
    """Rows from (method, budget, seed, recovery, accuracy right after surgery, recovered, fine-tuned)."""
    keys = ("method", "budget", "seed", "recovery", "pruned", "recovered", "finetuned")
    return {
        "schema": 1,
        "base": {"value": 0.94, "macs": 10, "params": 5},
        "rows": [{**dict(zip(keys, row, strict=True)), "macs_ratio": 0.5 - row[2] / 100} for row in given],
    }


def test_one_seed_says_of_no_method_that_it_is_best(own):
    row = ("none", 0.5, None, 0.9)
    one = rows_of(("complementary", 0.5, 0, "none", 0.5, None, 0.9), ("random", 0.5, 0, *row))
    page = own(render_compare(one))
    assert "with one seed: which of them is best cannot be told from one." in page
    assert "comes first" not in page
    assert "<strong>" not in page[page.index("All results") :]
    assert "±" not in page[page.index("</h3>") :]


@pytest.mark.parametrize(("best", "bold"), [(0.52, False), (0.7, True)])
def test_a_best_row_at_chance_is_not_marked(own, best, bold):
    rows = [
        (name, 0.5, seed, "none", at, None, None) for name, at in (("a", best), ("b", 0.4)) for seed in (0, 1)
    ]
    content = rows_of(*rows)
    content["base"] |= {"constant": 0.5, "samples": 200}
    page = own(render_compare(content))
    assert ("<strong>" in page[page.index("All results") :]) == bold


THREE_RECOVERIES = rows_of(
    ("complementary", 0.5, 0, "none", 0.5, None, 0.88),
    ("complementary", "keep_macs=0.5", 1, "none", 0.6, None, 0.9),
    ("complementary", 0.5, 0, "bn", 0.5, 0.8, 0.9),
    ("complementary", "0.5", 1, "bn", 0.6, 0.82, 0.91),
    ("complementary", 0.5, 0, "least-squares", 0.5, 0.9, 0.92),
    ("complementary", 0.5, 1, "least-squares", 0.6, 0.91, 0.93),
    ("random", 0.5, 0, "swapped", 0.1, 0.3, 0.4),
)


def buttons(page, what):
    """What can be chosen, and what is: pairs of label and whether it is pressed."""
    (group,) = re.findall(f'aria-label="{what}" data-chart="results">(.*?)</span>', page)
    return [
        (label, "true" in pressed) for pressed, label in re.findall(r"<button(.*?)>(.*?)</button>", group)
    ]


def test_a_line_a_method_and_recovery(drawn):
    page = render_compare(THREE_RECOVERIES)
    assert buttons(page, "Recovery") == [
        ("all", True),
        ("none", False),
        ("batch norm", False),
        ("least squares", False),
        ("swapped", False),
    ]
    assert buttons(page, "Step") == [
        ("Right after surgery", False),
        ("Recovered", False),
        ("Fine-tuned", True),
    ]
    found = drawn(page)
    assert found["results/finetuned/all"]["layout"]["shapes"][0]["y0"] == 94
    assert [line["name"] for line in found["results/finetuned/all"]["data"]] == [
        "Complementary pruning · no recovery",
        "Complementary pruning · batch norm",
        "Complementary pruning · least squares",
        "Random choice · swapped",
    ]
    assert found["results/recovered/none"]["data"] == []
    (squares,) = found["results/finetuned/least-squares"]["data"]
    assert (squares["name"], squares["x"], squares["y"]) == (
        "Complementary pruning",
        [pytest.approx(49.5)],
        [pytest.approx(92.5)],
    )
    assert "budget 0.5: 49.5 % of the MACs<br>92.50 % (92.00 – 93.00, 2 seeds)" in squares["hovertext"][
        0
    ].replace(words.NB, " ")


def test_recoveries_in_the_table_best_first_and_the_losers_stay(own):
    page = own(render_compare(THREE_RECOVERIES)).replace(words.NB, " ")
    assert page.count("<h3") == 1
    assert ROWS.findall(page) == [
        ("Complementary pruning", "least squares"),
        ("Complementary pruning", "batch norm"),
        ("Complementary pruning", "none"),
        ("Random choice", "swapped"),
    ]
    assert "<strong>92.50 ± 0.71</strong>" in page
    assert "−1.50" in page


def test_many_lines_start_with_the_recovery_that_wins_most(drawn):
    ranks = {"least-squares": 0.9, "bn": 0.8, "none": 0.7}
    given = [(f"m{i}", 0.5, 0, r, 0.1, None, v - i / 100) for i in range(4) for r, v in ranks.items()]
    chosen = [label for label, pressed in buttons(render_compare(rows_of(*given)), "Recovery") if pressed]
    assert chosen == ["least squares"]
    alone = [(f"m{i}", 0.5, 0, "bn", 0.1, None, 0.5) for i in range(12)]
    page = render_compare(rows_of(*alone))
    assert 'aria-label="Recovery"' not in page
    assert drawn(page)["results/finetuned"]["data"][0]["name"] == "m0"


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


def test_shares_of_heads_are_drawn_over_heads(own, drawn):
    compare = samples.comparison()
    compare["rows"] = [{**row, "kept": 18} for row in compare["rows"]]
    plain = render_compare(compare)
    page = render_compare({**compare, "job": {"budget_of": "heads"}})
    axes = [drawn(p)["results/finetuned/all"]["layout"]["xaxis"]["title"]["text"] for p in (plain, page)]
    assert axes == ["MACs left, % of the base", "heads kept"]
    assert {x for line in drawn(page)["results/finetuned/all"]["data"] for x in line["x"]} == {18}
    assert "Accuracy against heads" in own(page)
    assert "keep 50 % of the heads" in own(page).replace(words.NB, " ")
    assert "of the heads" not in own(plain)
