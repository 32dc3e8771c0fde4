"""Kill −9 at any step, ``--resume``: the same plan and the same weights as an undisturbed run.

The process is really killed, as soon as a file shows that it has come to a certain step.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

import processes


def command(base: Path, digits: str, out: Path, *more: str) -> list[str]:
    common = ["prune", "--model", str(base), "--data", digits, "--threads", "1", "--latency-batches", "1"]
    return [*common, "--out", str(out), "--resume", *more]


def kill_when(typed: list[str], sign: Path) -> bool:
    """Run until the file is there, then kill. False when the run ended before."""
    assert not sign.exists(), sign
    running = processes.started(*typed)
    try:
        while running.poll() is None:
            if sign.exists():
                running.send_signal(signal.SIGKILL)
                running.wait()
                return True
            time.sleep(0.001)
    finally:
        running.kill()
    assert running.returncode == 0, running.communicate()
    return False


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
    processes.finished(*command(base, digits, whole, *options))
    killed = [kill_when(command(base, digits, torn, *options), torn / sign) for sign in signs]
    # The last signs come so late that the process may win the race; most must have been kills.
    assert sum(killed) >= len(signs) - 1
    processes.finished(*command(base, digits, torn, *options))
    for file in ("plan.json", "model.safetensors", "model.json"):
        assert (torn / file).read_bytes() == (whole / file).read_bytes(), file
    assert {p.name for p in torn.iterdir()} == {p.name for p in whole.iterdir()}


def test_killed_training(digits, tmp_path):
    common = ["--model", "coprune:resnet20", "--width", "4", "--data", digits, "--batch-size", "16"]
    typed = ["train", *common, "--epochs", "6", "--threads", "1"]
    typed += ["--resume", "--out"]
    processes.finished(*[*typed, str(tmp_path / "whole")])
    assert kill_when([*typed, str(tmp_path / "torn")], tmp_path / "torn" / "work" / "training.safetensors")
    processes.finished(*[*typed, str(tmp_path / "torn")])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "torn")]
    assert weights[0] == weights[1]


def test_resuming_a_finished_run_changes_nothing(base, digits, tmp_path):
    typed = command(base, digits, tmp_path / "run", "--keep-macs", "0.5")
    processes.finished(*typed)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    processes.finished(*typed)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("stopped_by", [signal.SIGTERM, signal.SIGINT])
def test_an_overwriting_run_is_alone_and_says_how_to_go_on(base, digits, tmp_path, coprune, stopped_by):
    out, whole, new = tmp_path / "run", tmp_path / "whole", tmp_path / ".run.coprune-new"
    options = ("--keep-macs", "0.5", "--finetune-epochs", "60")
    again = [word for word in command(base, digits, out, *options) if word != "--resume"]
    assert coprune(*command(base, digits, out, "--keep-macs", "0.8")).code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    running = processes.started(*again, "--overwrite")
    try:
        while not (new / "work" / "finetune.safetensors").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
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
        _, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 128 + stopped_by
    assert err == (
        f"coprune: interrupted; {out} is as it was, the same command with --resume continues the new run\n"
    )
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert coprune(*again, "--resume").code == 0
    assert coprune(*command(base, digits, whole, *options)).code == 0
    for file in ("plan.json", "model.safetensors"):
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file
    assert not new.exists()


def dying(words: list[str], out: str, after: int) -> None:
    """A command that is killed before its n-th change in a folder; a function of a module, to be forked."""
    left = [after]

    def changed(event: str, given: tuple) -> None:
        writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")) and out in str(given[0]):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

    from coprune.cli.main import main

    sys.argv = ["coprune", *words]
    sys.addaudithook(changed)
    main()


def test_killed_inside_writes_of_a_run(base, digits, tmp_path, coprune):
    options = ("--keep-macs", "0.5", "--finetune-epochs", "2")
    whole = tmp_path / "whole"
    assert coprune(*command(base, digits, whole, *options)).code == 0
    context = processes.multiprocessing.get_context("forkserver")
    ends = []
    for after in (1, 8, 18, 30):
        out = tmp_path / str(after) / "run"
        words = command(base, digits, out, *options)
        child = context.Process(target=dying, args=(words, str(out), after))
        child.start()
        child.join()
        ends.append(child.exitcode)
        assert coprune(*words).code == 0
        for file in ("plan.json", "model.safetensors", "model.json"):
            assert (out / file).read_bytes() == (whole / file).read_bytes(), file
        assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}
    assert ends.count(9) >= 3, ends
