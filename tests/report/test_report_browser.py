"""The pages in a real browser: charts are drawn, the console is silent, nothing is asked for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import report_samples as samples

from coprune.report import write, write_compare

# What a reader does: next group, last group, the other scale; then it reports what it sees.
READER = """
<script>
byId("next").click();
byId("group").selectedIndex = groups.length - 1;
byId("group").dispatchEvent(new Event("change"));
for (const button of document.querySelectorAll("#scale button")) button.click();
redraw();
document.body.dataset.reason = byId("reason").textContent;
document.body.dataset.wide = String(document.documentElement.scrollWidth > window.innerWidth);
</script>
"""


def charts(dom: str) -> set[str]:
    """Ids of the charts plotly has drawn something into."""
    body = dom[dom.index("<main>") :]
    parts = re.split(r'<div id="([\w-]+)" class="chart', body)
    return {name for name, rest in zip(parts[1::2], parts[2::2], strict=True) if "main-svg" in rest}


def read(page: Path) -> Path:
    """The page with a reader in it."""
    read_by = page.with_name("read.html")
    read_by.write_text(page.read_text().replace("</body>", READER + "</body>"))
    return read_by


def test_a_clustering_run(folder, chromium):
    plan = samples.plan()
    page = write(folder(plan, samples.result(plan, searched=True)))
    seen = chromium(read(page))
    assert seen.console == []
    assert seen.requests == []
    assert charts(seen.dom) == {"stages", "overview", "curve", "map", "latency", "search"}
    assert 'data-reason="Kept 32 of 64.' in seen.dom
    assert 'data-wide="false"' in seen.dom


def test_a_ranking_run_on_a_narrow_screen(folder, chromium):
    plan = samples.plan([samples.ranked(n, s) for n, s in samples.NINE], method="magnitude")
    page = write(folder(plan, samples.result(plan, ("base", "pruned"), timed=False)))
    seen = chromium(read(page), width=500)
    assert seen.console == []
    assert seen.requests == []
    assert charts(seen.dom) == {"stages", "overview", "score"}
    assert 'data-wide="false"' in seen.dom


def test_many_groups_and_many_units(folder, chromium):
    groups = [samples.clustered(f"features.block{i}.conv", 2000 if i == 0 else 24) for i in range(110)]
    plan = samples.plan(groups)
    page = write(folder(plan, samples.result(plan)))
    assert page.stat().st_size < 8_000_000
    seen = chromium(page)
    assert seen.console == []
    assert charts(seen.dom) == {"stages", "overview", "curve", "map", "latency"}
    assert seen.dom.count("<option") == 110
    assert "All 1,000 kept units" in seen.dom


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
    assert charts(seen.dom) == {"accuracy"}


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
