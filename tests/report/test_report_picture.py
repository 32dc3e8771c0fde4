"""The README's picture: whole sections, nothing cut off at its foot."""

from __future__ import annotations

import sys
from pathlib import Path

import browser
import numpy as np
import pytest
import report_samples as samples
from matplotlib.image import imread

from coprune.report import write

ROOT = Path(__file__).parents[2]
MARGIN = 40
"""Rows of bare paper below the last thing on the page."""


def bare(picture: np.ndarray) -> np.ndarray:
    """Which rows of a picture are bare paper."""
    return (picture[..., :3] == picture[0, 0, :3]).all(axis=(1, 2))


def whole(picture: np.ndarray) -> bool:
    """Whether the picture ends in bare paper, and shows more than that."""
    return bool(bare(picture)[-MARGIN:].all() and not bare(picture).all())


def test_the_readme_s_picture_is_whole():
    assert whole(imread(ROOT / "docs" / "report.png"))


def test_a_picture_ends_where_its_sections_end(folder, tmp_path, monkeypatch):
    if browser.find() is None:
        pytest.skip("no browser to look with")
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from picture import WIDTH, picture

    plan = samples.plan()
    page, out = write(folder(plan, samples.result(plan))), tmp_path / "page.png"
    height = picture(page, out)
    drawn = imread(out)
    assert drawn.shape[:2] == (height, WIDTH)
    assert whole(drawn)
    assert not whole(drawn[: np.flatnonzero(~bare(drawn))[-1]])
