"""Kill −9 at any step, ``--resume``: the same plan and the same weights as an undisturbed run.

The process really is killed, by itself: before it changes a file, once a file shows that it has come to a
certain step.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

import processes

ONESHOT = ("--keep-macs", "0.5", "--finetune-epochs", "6")


def command(base: Path, digits: str, out: Path, *more: str) -> list[str]:
    common = ["prune", "--model", str(base), "--trust", "--data", digits, "--threads", "1"]
    return [*common, "--latency-batches", "1", "--out", str(out), "--resume", *more]


def dying(words: list[str], out: str, sign: str, after: int) -> None:
    """A command that is killed before its n-th change in a folder once a file is there; to be forked."""
    left = [after]

    def changed(event: str, given: tuple) -> None:
        writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        changes = writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if changes and out in str(given[0]) and os.path.exists(sign):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    from coprune.cli.main import main

    sys.argv = ["coprune", *words]
    sys.addaudithook(changed)
    main()


def kill(words: list[str], out: Path, *, sign: Path, after: int = 0) -> None:
    """Run until a file is there and so many changes after it have been made, then kill."""
    running = processes.Started(dying, words, str(out), str(sign), after)
    _, err = running.communicate()
    assert running.returncode == -signal.SIGKILL, (sign, after, err)


def check_same(one: Path, other: Path) -> None:
    for file in ("plan.json", "model.safetensors", "model.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    assert {p.name for p in one.iterdir()} == {p.name for p in other.iterdir()}


def written(out: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def oneshot(small_base, digits, tmp_path_factory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    processes.finished(*command(small_base, digits, out, *ONESHOT))
    return out


def kill_at_every_step(words: list[str], torn: Path, signs: tuple[str, ...]) -> None:
    for sign in signs:
        assert not (torn / sign).exists(), sign
        kill(words, torn, sign=torn / sign)
    processes.finished(*words)


def test_killed_at_every_step(oneshot, small_base, digits, tmp_path):
    torn = tmp_path / "torn"
    signs = ("job.json", "profile/profile.json", "plan.json", "work/finetune.safetensors", "model.json")
    kill_at_every_step(command(small_base, digits, torn, *ONESHOT), torn, signs)
    check_same(torn, oneshot)


def test_killed_at_every_step_layer_by_layer(small_base, digits, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    options = ("--schedule", "layerwise", "--method", "cosep", "--between-epochs", "2")
    processes.finished(*command(small_base, digits, whole, *options))
    signs = ("work/layers/000/training.safetensors", "work/layers/002/decision.json", "plan.json")
    kill_at_every_step(command(small_base, digits, torn, *options), torn, signs)
    check_same(torn, whole)


def test_killed_training(digits, tmp_path):
    typed = ["train", "--model", "python:tiny:resnet8", "--data", digits, "--batch-size", "16"]
    typed += ["--epochs", "3", "--threads", "1", "--resume", "--out"]
    processes.finished(*typed, tmp_path / "whole")
    torn = tmp_path / "torn"
    kill([*typed, str(torn)], torn, sign=torn / "work" / "training.safetensors")
    processes.finished(*typed, torn)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "torn")]
    assert weights[0] == weights[1]


def test_resuming_a_finished_run_changes_nothing(oneshot, small_base, digits):
    before = written(oneshot)
    processes.finished(*command(small_base, digits, oneshot, *ONESHOT))
    assert written(oneshot) == before


@pytest.mark.parametrize("stopped_by", [signal.SIGTERM, signal.SIGINT])
def test_an_overwriting_run_is_alone_and_says_how_to_go_on(
    oneshot, small_base, digits, tmp_path, coprune, stopped_by
):
    out, new = tmp_path / "run", tmp_path / ".run.coprune-new"
    again = [word for word in command(small_base, digits, out, *ONESHOT) if word != "--resume"]
    assert coprune(*command(small_base, digits, out, "--keep-macs", "0.8")).code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    running = processes.started(*again, "--overwrite")
    try:
        while not (new / "work" / "finetune.safetensors").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.005)
        running.send_signal(signal.SIGSTOP)
        # A second one, while the first is at it.
        for way in ("--resume", "--overwrite"):
            ended = coprune(*again, way)
            assert (ended.code, ended.out) == (2, "")
            assert (
                ended.err
                == f"coprune: {out}: in use, another run is writing there; wait until it has ended\n"
            )
        assert running.poll() is None
        running.send_signal(stopped_by)
        running.send_signal(signal.SIGCONT)
        _, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 128 + stopped_by
    assert err == (
        f"coprune: interrupted; {out} is as it was, the same command with --resume continues the new run\n"
    )
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert coprune(*again, "--resume").code == 0
    check_same(out, oneshot)
    assert not new.exists()


@pytest.mark.parametrize("after", [1, 8, 18, 30])
def test_killed_inside_writes_of_a_run(oneshot, small_base, digits, tmp_path, coprune, after):
    out = tmp_path / "run"
    words = command(small_base, digits, out, *ONESHOT)
    kill(words, out, sign=tmp_path, after=after)
    assert coprune(*words).code == 0
    check_same(out, oneshot)
