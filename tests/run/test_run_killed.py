"""Kill −9 at any step, ``--resume``: the same plan and the same weights as an undisturbed run.

The process is really killed, as soon as a file shows that it has come to a certain step.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def command(base: Path, digits: str, out: Path, *more: str) -> list[str]:
    common = ["prune", "--model", str(base), "--data", digits, "--threads", "1", "--latency-batches", "1"]
    return [sys.executable, "-m", "coprune", *common, "--out", str(out), "--resume", *more]


def kill_when(typed: list[str], sign: Path) -> bool:
    """Run until the file is there, then kill. False when the run ended before."""
    assert not sign.exists(), sign
    running = subprocess.Popen(typed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while running.poll() is None:
            if sign.exists():
                running.send_signal(signal.SIGKILL)
                running.wait()
                return True
            time.sleep(0.001)
    finally:
        running.kill()
    assert running.returncode == 0, running.stderr.read() if running.stderr else ""
    return False


def finish(typed: list[str]) -> None:
    subprocess.run(typed, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("options", "signs"),
    [
        (
            ("--keep-macs", "0.5", "--finetune-epochs", "6"),
            ("job.json", "profile/profile.json", "plan.json", "work/finetune.safetensors", "model.json"),
        ),
        (
            ("--schedule", "layerwise", "--method", "cosep", "--between-epochs", "2"),
            ("work/layers/000/training.safetensors", "work/layers/002/decision.json", "plan.json"),
        ),
    ],
    ids=["oneshot", "layerwise"],
)
def test_killed_at_every_step(base, digits, tmp_path, options, signs):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    finish(command(base, digits, whole, *options))
    killed = [kill_when(command(base, digits, torn, *options), torn / sign) for sign in signs]
    # The last signs come so late that the process may win the race; most must have been kills.
    assert sum(killed) >= len(signs) - 1
    finish(command(base, digits, torn, *options))
    for file in ("plan.json", "model.safetensors", "model.json"):
        assert (torn / file).read_bytes() == (whole / file).read_bytes(), file
    assert {p.name for p in torn.iterdir()} == {p.name for p in whole.iterdir()}


def test_killed_training(digits, tmp_path):
    common = ["--model", "coprune:resnet20", "--width", "4", "--data", digits, "--batch-size", "16"]
    typed = [sys.executable, "-m", "coprune", "train", *common, "--epochs", "6", "--threads", "1"]
    typed += ["--resume", "--out"]
    finish([*typed, str(tmp_path / "whole")])
    assert kill_when([*typed, str(tmp_path / "torn")], tmp_path / "torn" / "work" / "training.safetensors")
    finish([*typed, str(tmp_path / "torn")])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "torn")]
    assert weights[0] == weights[1]


def test_resuming_a_finished_run_changes_nothing(base, digits, tmp_path):
    typed = command(base, digits, tmp_path / "run", "--keep-macs", "0.5")
    finish(typed)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    finish(typed)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
