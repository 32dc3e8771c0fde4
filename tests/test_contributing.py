"""The recipes of CONTRIBUTING, done: each is one new file and at most one line, and they work together."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import coprune

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
BLOCK = re.compile(r"```python\n# (new file|line in): ([\w/.]+)(?:, behind: ([^\n]*))?\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the package with all that the page adds."""
    root = tmp_path_factory.mktemp("house")
    shutil.copytree(
        Path(coprune.__file__).parent, root / "src/coprune", ignore=shutil.ignore_patterns("__pycache__")
    )
    for what, path, behind, text in BLOCK.findall(PAGE.read_text()):
        if what == "new file":
            assert not (root / path).exists(), path
            (root / path).write_text(text)
        else:
            lines = (root / path).read_text().splitlines(keepends=True)
            (at,) = [i for i, line in enumerate(lines) if behind in line]
            assert text.count("\n") == 1
            (root / path).write_text("".join([*lines[: at + 1], text, *lines[at + 1 :]]))
    return root


def typed(house: Path, *words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "coprune", *map(str, words)],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house / "src")},
        capture_output=True,
        text=True,
    )


def test_each_is_one_file_and_one_line():
    found = [(what, Path(path).parent.name) for what, path, _, _ in BLOCK.findall(PAGE.read_text())]
    assert found == [
        ("new file", "statistics"), ("new file", "methods"), ("line in", "methods"),
        ("new file", "recovery"), ("line in", "recovery"), ("new file", ""), ("line in", "coprune"),
        ("new file", "tasks"), ("line in", "tasks"),
    ]  # fmt: skip


def test_they_prune_together(house, digits):
    common = ("--model", "python:mynet:net", "--data", digits, "--force", "--latency-batches", "1")
    asked = ("--method", "loudest", "--power", "2", "--keep-macs", "0.5", "--recovery", "logits")
    asked += ("--metric", "balanced_accuracy")
    ended = typed(house, "prune", *common, *asked, "--out", "run")
    assert ended.returncode == 0, ended.stderr
    plan = json.loads((house / "run/plan.json").read_text())
    assert (plan["method"], plan["settings"]["power"], plan["settings"]["recovery"]) == (
        "loudest",
        2.0,
        "logits",
    )
    # The norm is a member of its group: without its entry nothing could be cut there.
    layers = [member["layer"] for group in plan["groups"] for member in group["members"]]
    assert "4" in layers
    assert all(len(group["kept"]) < group["size"] for group in plan["groups"])
    result = json.loads((house / "run/result.json").read_text())
    assert [stage["name"] for stage in result["stages"]] == ["base", "pruned", "recovered"]
    assert {stage["metric"] for stage in result["stages"]} == {"balanced_accuracy"}
    assert (house / "run/profile").is_dir()
    assert "mean output" in (house / "run/report.html").read_text()


def test_the_options_are_there_by_themselves(house):
    for command in ("prune", "compare"):
        words = " ".join(typed(house, command, "--help").stdout.split())
        assert "--power" in words
        assert "logits (correct the last layer's bias)" in words
    ended = typed(
        house, "prune", "--model", "x", "--data", "fashion-mnist", "--method", "loudst", "--out", "r"
    )
    assert (ended.returncode, "did you mean loudest" in ended.stderr) == (2, True)
