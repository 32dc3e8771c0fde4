"""The pages in a real browser: charts are drawn, the console is silent, nothing is asked for."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import report_samples as samples

from coprune.plan import Prediction
from coprune.report import write, write_compare

# What a reader does: next group, last group, the other scale; then it reports what it sees.
READER = """
<script>
byId("next").click();
byId("group").selectedIndex = byId("group").length - 1;
byId("group").dispatchEvent(new Event("change"));
for (const button of document.querySelectorAll('[data-chart="overview"] button')) button.click();
drawAll(document);
document.body.dataset.reason = document.querySelector("#details p").textContent;
document.body.dataset.wide = String(document.documentElement.scrollWidth > window.innerWidth);
</script>
"""


def charts(dom: str) -> set[str]:
    """Ids of the charts plotly has drawn something into."""
    body = dom[dom.index("<main>") :]
    parts = re.split(r'<div id="([\w-]+)" class="chart', body)
    return {name for name, rest in zip(parts[1::2], parts[2::2], strict=True) if "main-svg" in rest}


def read(page: Path, reader: str = READER) -> Path:
    """The page with a reader in it."""
    read_by = page.with_name("read.html")
    read_by.write_text(page.read_text().replace("</body>", reader + "</body>"))
    return read_by


def test_a_clustering_run(folder, chromium):
    plan = samples.plan()
    page = write(folder(plan, samples.result(plan, searched=True)))
    seen = chromium(read(page))
    assert seen.console == []
    assert seen.requests == []
    assert charts(seen.dom) == {"stages", "overview", "curve", "plane", "latency", "search"}
    assert 'data-reason="Kept 32 of 64.' in seen.dom
    assert 'data-wide="false"' in seen.dom


def test_a_ranking_run_on_a_narrow_screen(folder, chromium):
    plan = samples.plan([samples.ranked(n, s) for n, s in samples.NINE], method="magnitude")
    page = write(folder(plan, samples.result(plan, ("base", "pruned"), timed=False)))
    seen = chromium(read(page), width=500)
    assert seen.console == []
    assert seen.requests == []
    assert charts(seen.dom) == {"stages", "overview", "scores"}
    assert 'data-wide="false"' in seen.dom


def test_many_groups_and_many_units(folder, chromium):
    groups = [samples.clustered(f"features.block{i}.conv", 2000 if i == 0 else 24) for i in range(110)]
    plan = samples.plan(groups)
    page = write(folder(plan, samples.result(plan)))
    assert page.stat().st_size < 4_000_000
    seen = chromium(page)
    assert seen.console == []
    assert charts(seen.dom) == {"stages", "overview", "curve", "plane", "latency"}
    assert seen.dom.count("<option") == 110
    assert "All 1,000 kept units" in seen.dom


TAKEN = (
    Prediction(unit=17, explained=0.94, by=((3, 0.61), (9, 0.33))),
    Prediction(unit=5, explained=0.995, by=((9, 0.995),)),
    Prediction(unit=6, explained=0.004, by=()),
    Prediction(unit=7, explained=0.8, by=((3, 0.3), (9, 0.2), (0, 0.1), (1, 0.02))),
)
# Chooses every removed unit in turn, then opens what is folded.
LISTENER = """
<script>
const heard = [], said = () => byId("prediction").textContent;
for (const option of byId("predicted").options) {
  byId("predicted").value = option.value;
  byId("predicted").dispatchEvent(new Event("change"));
  heard.push(said() + byId("split").textContent);
}
byId("predictions").emit("plotly_hover", { points: [{ x: "5" }] });
heard.push(said());
byId("predictions").emit("plotly_click", { points: [{ x: "17" }] });
byId("predictions").emit("plotly_unhover", {});
heard.push(said(), byId("predicted").value);
byId("removed").open = true;
document.body.dataset.heard = JSON.stringify(heard);
document.body.dataset.shapes = byId("predictions").layout.shapes.length;
document.body.dataset.wide = String(document.documentElement.scrollWidth > window.innerWidth);
</script>
"""


@pytest.mark.parametrize("width", [1200, 500])
def test_predictions_of_removed_units(folder, chromium, width):
    group = samples.complementary("layer1.0.conv1", 20)
    kept = (0, 1, 2, 3, 9, *range(10, 17), 18, 19)
    first = group.model_copy(update={"kept": kept, "predicted": TAKEN})
    plan = samples.plan(
        [first, samples.complementary("layer2.0.conv1", 64)], method="complementary", budget="max_drop=1"
    )
    page = write(folder(plan, samples.result(plan, search=samples.PROBES)))
    seen = chromium(read(page, LISTENER), width=width)
    assert seen.console == []
    assert charts(seen.dom) == {"stages", "overview", "predictions", "curve", "latency", "search"}
    assert 'data-wide="false"' in seen.dom
    assert 'data-shapes="2"' in seen.dom
    heard = json.loads(html.unescape(re.findall(r'data-heard="(.*?)"', seen.dom)[0]).replace("\u00a0", " "))
    assert heard == [
        "Channel 5: 9 predicts 99.5 % of it.9: 99.5 %lost: 0.5 %",
        "Channel 6: no mix of the kept ones predicts it.lost: 100 %",
        "Channel 7: the kept ones together predict 80 % of it, "
        "mostly 3 (30 %), 9 (20 %) and 0 (10 %).3: 30 %9: 20 %0: 10 %1: 2 %others: 18 %lost: 20 %",
        "Channel 17: 3 and 9 predict 94 % of it.3: 61 %9: 33 %lost: 6.0 %",
        "Channel 5: 9 predicts 99.5 % of it.",
        "Channel 17: 3 and 9 predict 94 % of it.",
        "17",
    ]
    # The least predicted first, in the folded table; the busiest kept unit first in the other.
    details = seen.dom[seen.dom.index('id="details"') : seen.dom.index("<template")]
    removed = details[details.index('id="removed"') :]
    assert re.findall(r"<tr><td>(\d+)</td>", removed)[:4] == ["6", "7", "17", "5"]
    kept_table = details[details.index('id="why"') : details.index('id="removed"')]
    assert re.findall(r'<td class="number">([\d.]+)</td>', kept_table)[:4] == ["3", "1.52", "2", "0.91"]


def test_512_units_and_a_foreign_plan(folder, chromium):
    odd = samples.complementary("b", 16).model_copy(
        update={"predicted": (Prediction(unit=99, explained=1.0),), "curve": (), "curve_name": ""}
    )
    lost = samples.complementary("c", 4, keep=0.25)
    lost = lost.model_copy(update={"predicted": (Prediction(unit=lost.predicted[0].unit, explained=0.0),)})
    groups = [samples.complementary("a", 512, listed=40), odd, lost]
    plan = samples.plan(groups, method="complementary")
    page = write(folder(plan, samples.result(plan)))
    seen = chromium(page)
    assert seen.console == []
    assert charts(seen.dom) == {"stages", "overview", "predictions", "curve", "latency"}
    seen = chromium(read(page))
    assert seen.console == []
    assert 'data-reason="Kept 1 of 4. Removed one after the other' in seen.dom


def test_an_older_search_and_one_far_from_the_limit(folder, chromium):
    plan = samples.plan(budget="max_drop=1")
    old = tuple({k: p[k] for k in ("macs", "value", "ok")} for p in samples.PROBES)
    reader = """<script>
    document.body.dataset.near = byId("search").layout.yaxis.range[0];
    document.body.dataset.limit = byId("search").layout.shapes[0].y0;
    document.querySelector('[data-chart="search"] [value="all"]').click();
    document.body.dataset.all = byId("search").layout.yaxis.range[0] < 10.2;
    </script>"""
    seen = chromium(read(write(folder(plan, samples.result(plan, search=old))), reader))
    assert seen.console == []
    assert "search" in charts(seen.dom)
    assert re.search(r'data-near="9[12]\.', seen.dom)
    assert 'data-limit="93"' in seen.dom
    assert 'data-all="true"' in seen.dom


@pytest.mark.parametrize("bare", [True, False])
def test_hostile_and_empty_plans(folder, chromium, bare):
    evil = "</script><script>console.error(1)</script><img src=x onerror=console.error(2)><a href='http://x.test'>"
    groups = (
        [] if bare else [samples.clustered("a", 16).model_copy(update={"name": evil, "curve_name": evil})]
    )
    plan = samples.plan(groups, method=evil, skipped=())
    page = write(folder(plan, samples.result(plan, () if bare else ("base", "pruned"), timed=not bare)))
    seen = chromium(page)
    assert seen.console == []
    assert seen.requests == []
    assert "<img" not in seen.dom[seen.dom.index("<main>") :]


def test_a_comparison(tmp_path, chromium):
    (tmp_path / "compare.json").write_text(json.dumps(samples.comparison()))
    seen = chromium(write_compare(tmp_path))
    assert seen.console == []
    assert seen.requests == []
    assert charts(seen.dom) == {"results"}


def test_a_comparison_by_step_and_recovery(tmp_path, chromium):
    rows = [
        {"method": m, "budget": b, "seed": s, "macs_ratio": b, "recovery": r, "pruned": b, "finetuned": f * b}
        | {"recovered": None if r == "none" else f * b}
        for m in ("complementary", "magnitude")
        for b in (0.5, 0.25)
        for s in (0, 1)
        for r, f in (("none", 1.2), ("bn", 1.3), ("least-squares", 1.4 + s / 10))
    ]
    base = {"value": 0.94, "macs": 10, "params": 5}
    (tmp_path / "compare.json").write_text(json.dumps({"schema": 1, "base": base, "rows": rows}))
    reader = """<script>
    const drawn = {};
    const [steps, recoveries] = document.querySelectorAll('[data-chart="results"]');
    for (const step of steps.children) for (const by of recoveries.children) {
      step.click(); by.click();
      drawn[step.textContent + ", " + by.textContent] = byId("results").data.map((t) => t.name);
    }
    document.body.dataset.drawn = JSON.stringify(drawn);
    document.body.dataset.base = byId("results").layout.shapes[0].y0;
    document.body.dataset.high = byId("results").data[0].error_y.array.map((n) => n.toFixed(3));
    </script>"""
    seen = chromium(read(write_compare(tmp_path), reader))
    assert seen.console == []
    assert charts(seen.dom) == {"results"}
    drawn = json.loads(html.unescape(re.findall(r'data-drawn="(.*?)"', seen.dom)[0]))
    both = ["Complementary pruning", "Magnitude (L1)"]
    assert drawn["Right after surgery, all"] == both  # nothing has been recovered yet: one line a method
    assert drawn["Recovered, all"] == [f"{m} · {r}" for m in both for r in ("batch norm", "least squares")]
    assert len(drawn["Fine-tuned, all"]) == 6
    assert drawn["Recovered, none"] == []
    assert drawn["Fine-tuned, least squares"] == both
    assert 'data-base="94"' in seen.dom
    assert 'data-high="1.250,2.500"' in seen.dom  # seeds 35 and 37.5, 70 and 75: the mean's distance up


def test_the_page_forbids_what_slips_in(folder, chromium):
    plan = samples.plan()
    page = write(folder(plan, samples.result(plan)))
    page.write_text(page.read_text().replace("<footer>", '<img src="http://elsewhere.test/a.png"><footer>'))
    seen = chromium(page)
    assert any("Content Security Policy" in line for line in seen.console)
    assert seen.requests == []


def test_the_browser_test_can_fail(tmp_path, chromium):
    page = tmp_path / "bad.html"
    page.write_text(
        '<main><img src="http://elsewhere.test/a.png"><div id="x" class="chart"></div></main>'
        '<script>console.error("bad"); fetch("https://elsewhere.test/b.json").catch(() => {});'
        "missing();</script>"
    )
    seen = chromium(page)
    assert any("bad" in line for line in seen.console)
    assert any("missing is not defined" in line for line in seen.console)
    assert {"http://elsewhere.test/a.png", "https://elsewhere.test/b.json"} <= set(seen.requests)
    assert charts(seen.dom) == set()
