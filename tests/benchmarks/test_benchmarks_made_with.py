"""A result says which code and weights it was made with, and is listed once these have changed."""

from __future__ import annotations

import json
import sys

import pytest
from test_benchmarks_smoke import ROOT, module


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The script, on a source of two rooms and a network."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = module("made_with")
    for room in ("recovery", "report"):
        (tmp_path / "src" / room).mkdir(parents=True)
        (tmp_path / "src" / room / "a.py").write_text(
            '"""Says."""\n\n\ndef f(x):\n    """Doubles."""\n    return 2 * x\n'
        )
    (tmp_path / "bases/net").mkdir(parents=True)
    (tmp_path / "bases/net/model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "SOURCE", tmp_path / "src")
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    return script


def after(made, monkeypatch, tmp_path, *, since=None):
    """What is said of a result that is written now."""
    made.digests.cache_clear()
    made.write(tmp_path / "quality_a.json", {"model": "bases/net", "rows": [{"n": 1}]}, since=since)

    def changed(file, text):
        (tmp_path / file).write_text(text)
        made.digests.cache_clear()
        return made.listed(tmp_path)

    return changed


def test_words_do_not_make_a_result_stale_but_code_does(made, monkeypatch, tmp_path):
    changed = after(made, monkeypatch, tmp_path)
    assert made.listed(tmp_path) == []
    assert changed("src/recovery/a.py", "# other words\ndef f(x):\n    return 2 * x\n") == []
    assert changed("src/report/a.py", "def f(x):\n    return 4 * x\n") == []
    found = changed("src/recovery/a.py", "def f(x):\n    return 3 * x\n")
    assert found == ["quality_a: code changed in recovery"]
    found = changed("src/layers.py", "def g(x):\n    return x\n")
    assert found == ["quality_a: code changed in recovery, shared"]


def test_other_weights_make_it_stale_and_missing_ones_do_not(made, monkeypatch, tmp_path):
    changed = after(made, monkeypatch, tmp_path)
    assert changed("bases/net/model.safetensors", "others") == ["quality_a: other weights of bases/net"]
    (tmp_path / "bases/net/model.safetensors").unlink()
    assert made.listed(tmp_path) == []


def test_a_result_with_older_parts_is_as_old_as_these(made, monkeypatch, tmp_path):
    before = made.stamped({"model": "bases/net"})
    (tmp_path / "src/recovery/a.py").write_text("def f(x):\n    return 5 * x\n")
    after(made, monkeypatch, tmp_path, since=before)
    assert made.listed(tmp_path) == ["quality_a: code changed in recovery"]
    after(made, monkeypatch, tmp_path, since={"rows": []})
    assert made.listed(tmp_path) == ["quality_a: code changed in recovery"]


def test_what_says_nothing_is_listed_and_tasks_one_by_one(made, monkeypatch, tmp_path, capsys):
    (tmp_path / "old.json").write_text("{}")
    tasks = {"old": {}, "new": made.stamped({})}
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": tasks}))
    (tmp_path / "compare.json").write_text("{}")
    monkeypatch.setattr(
        sys, "argv", ["made_with.py", str(tmp_path / "compare.json"), str(tmp_path / "kept.json")]
    )
    made.main()
    assert made.listed(tmp_path) == [
        "compare: made before results said what with",
        "old: made before results said what with",
        "tasks old: made before results said what with",
    ]
    monkeypatch.setattr(sys, "argv", ["made_with.py"])
    made.main()
    assert "warning: 3 results are older than what they measure" in capsys.readouterr().err
