"""A run folder in one line, and Chromium where there is one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import browser
import pytest
from plotly.offline import get_plotlyjs

from coprune.plan import Plan
from coprune.result import Result


@pytest.fixture
def folder(tmp_path):
    """Writes a plan and a result into a run folder."""

    def make(plan: Plan, result: Result) -> Path:
        plan.save(tmp_path / "plan.json")
        result.save(tmp_path / "result.json")
        return tmp_path

    return make


@pytest.fixture
def own():
    """What is ours in a page: all but the inlined plotly.js."""

    def without(page: str) -> str:
        library = get_plotlyjs()
        assert page.count(library) == 1
        return page.replace(library, "")

    return without


@pytest.fixture
def drawn_from():
    """The data block a page's script draws from."""

    def read(page: str) -> dict:
        (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
        return json.loads(block)

    return read


@pytest.fixture
def chromium(tmp_path):
    """Opens a page: ``chromium(path)`` → :class:`browser.Visit`."""
    if browser.find() is None:
        pytest.skip(f"no browser to look with: none of {', '.join(browser.NAMES)} is installed")
    count = iter(range(100))

    def open_page(page: Path, **options: object) -> browser.Visit:
        scratch = tmp_path / f"browser{next(count)}"
        scratch.mkdir()
        return browser.visit(page, scratch, **options)

    return open_page
