"""Names, help and mistypes are answered at once: torch is loaded when something is computed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from coprune.__main__ import SPINS, start

HEAVY = "{'torch', 'numpy', 'scipy', 'sklearn', 'transformers', 'plotly'}"
RUN = f"""
import sys
from coprune.cli.main import main
try:
    main()
finally:
    import time
    assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
    assert sys.argv[1:] != ["--help"] or "pydantic" not in sys.modules
    print("CPU", time.process_time())
"""
MODEL, DATA = "coprune:resnet20", "fashion-mnist-sample"


def started(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def cpu_seconds(ended: subprocess.CompletedProcess[str]) -> float:
    return float(ended.stdout.rsplit("CPU ", 1)[1])


def test_an_import_loads_nothing_heavy():
    ended = started(f"import coprune, sys; assert not {HEAVY} & set(sys.modules)")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, str(SPINS)),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_threads_wait_for_a_moment_and_then_sleep_unless_the_user_says_otherwise(monkeypatch, given, spins):
    import coprune.cli.main as module

    # Set and taken away, so that it is as before when the test has ended.
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr(module, "main", lambda: seen.append(os.environ.get("GOMP_SPINCOUNT")))
    start()
    assert seen == [spins]


@pytest.mark.parametrize(("words", "most"), [(["--help"], 0.2), (["prune", "--help"], 0.7)])
def test_help_is_there_at_once(words, most):
    ended = started(RUN, *words)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert cpu_seconds(ended) < most


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--method": "magnitud"}, "unknown method 'magnitud'; did you mean magnitude"),
        ({"--model": "torchvison:resnet50"}, "unknown model 'torchvison:resnet50'"),
        ({"--model": "coprune:resnet21"}, "unknown model 'coprune:resnet21'; did you mean coprune:resnet20"),
        ({"--data": "fashion-mnits"}, "unknown data 'fashion-mnits'; did you mean fashion-mnist"),
        ({"--data": "npz:nowhere.npz"}, "npz:nowhere.npz: no such file: nowhere.npz"),
        ({"--weights": "nowhere.pt"}, "nowhere.pt: no such weights file"),
        ({"--keep-macs": "50"}, "--keep-macs 50: a number in (0, 1]; did you mean 0.5?"),
        ({"--allocation": "evenly"}, "--allocation evenly: Input should be 'auto'"),
        ({"--device": "tpu"}, "--device tpu: known are auto, cpu, cuda"),
        ({"--mss": "paper"}, "--mss is no option of method 'complementary' but of cosep"),
        ({"--keep-units": "0.5"}, "give one of --keep-macs"),
        ({"--keep-mac": "0.5"}, "No such option: --keep-mac"),
        ({"--out": "taken"}, "taken: exists already"),
    ],
)
def test_a_mistype_is_answered_before_torch_is_loaded(tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("dear diary")
    options = {"--model": MODEL, "--data": DATA, "--keep-macs": "0.5", "--out": "x", **change}
    ended = started(RUN, "prune", *[word for pair in options.items() for word in pair])
    assert ended.returncode == 2
    assert said in ended.stderr
    assert cpu_seconds(ended) < 0.7
