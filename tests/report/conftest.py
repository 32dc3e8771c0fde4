"""A run folder in one line, and Chromium where there is one."""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from pathlib import Path

import browser
import pytest

from coprune.plan import Plan
from coprune.result import Result

LIBRARY = resources.files("coprune.report").joinpath("templates", "plotly.min.js").read_text()


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
        assert page.count(LIBRARY) == 1
        return page.replace(LIBRARY, "")

    return without


@pytest.fixture
def drawn():
    """The figures of a page by name; of a group's, with its place: ``3/curve``."""

    def read(page: str) -> dict[str, dict]:
        page = page.replace(LIBRARY, "")
        found = figures(page[: page.find("<template")]) if "<template" in page else figures(page)
        for place, part in re.findall(r'<template id="group-(\d+)">(.*?)</template>', page, re.DOTALL):
            found |= {f"{place}/{name}": figure for name, figure in figures(part).items()}
        return found

    return read


def figures(part: str) -> dict[str, dict]:
    """The figures that stand in a part of a page."""
    blocks = re.findall(
        r'<script type="application/json" data-figure="(.*?)">(.*?)</script>', part, re.DOTALL
    )
    return {html.unescape(name): json.loads(text) for name, text in blocks}


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
