"""The command line under torchrun: one result whatever the number of processes, and one line when it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from coprune.distributed.world import rank
from coprune.errors import UserError
from digits import write_digits
from processes import printed, typed

COMMON = ("--latency-batches", "1", "--threads", "1", "--calibration", "600")

HALF = ("--keep-macs", "0.5")
"""Three groups, chosen by the default method with its measured allocation."""


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> str:
    """Enough samples for three batches of calibration and five of held-out samples."""
    return f"npz:{write_digits(tmp_path_factory.mktemp('many') / 'digits.npz', n=2400)}"


def words(command, base, data, out, *more):
    return (command, "--model", base, "--trust", "--data", data, "--out", out, *COMMON, *more)


def read(folder, name):
    return json.loads((folder / name).read_text())


def kept(folder):
    return {g["name"]: g["kept"] for g in read(folder, "plan.json")["groups"]}


def values(folder):
    return [
        (s["name"], s["value"], s["calibration"], s["macs"]) for s in read(folder, "result.json")["stages"]
    ]


@pytest.fixture(scope="module")
def alone(small_base, many, tmp_path_factory):
    """The same with one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert typed(1, *words("prune", small_base, many, out, *HALF), logs=out.parent) == [0]
    return out


@pytest.mark.parametrize("count", [2, 4])
def test_same_units_and_accuracy(alone, small_base, many, tmp_path, count):
    out, logs = tmp_path / "run", tmp_path / "logs"
    assert typed(count, *words("prune", small_base, many, out, *HALF), logs=logs) == [0] * count
    assert kept(out) == kept(alone)
    assert values(out) == values(alone)
    assert read(out, "result.json")["processes"] == count
    assert {p.name for p in out.iterdir()} == {p.name for p in alone.iterdir()}
    assert printed(logs).out.count("units in 3 groups") == 1


def test_training_is_shared_out_too(digits, tmp_path, coprune):
    out, options = tmp_path / "base", ("--width", 4, "--epochs", 3, "--batch-size", 16, "--lr", 0.05)
    command = ("train", "--model", "coprune:resnet20", "--data", digits, "--out", out, *options)
    assert typed(2, *command, logs=tmp_path) == [0, 0]
    assert read(out, "result.json")["stages"][0]["value"] > 0.9
    assert len((out / "log.jsonl").read_text().splitlines()) == 3
    # As whole as if one process had made it.
    assert coprune(*command, "--resume").code == 0


def said(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("coprune:")]


@pytest.mark.parametrize(
    ("command", "wrong", "line"),
    [
        ("prune", ("--method", "magnitud"), "did you mean"),
        ("measure", (), "measure is done by one process; leave the launcher away"),
    ],
)
def test_a_mistake_of_all_is_one_line(small_base, digits, tmp_path, command, wrong, line):
    pruned = words(command, small_base, digits, tmp_path / "run", *wrong)
    given = (command, small_base, "--trust") if command == "measure" else pruned
    with pytest.raises(ChildFailedError) as ended:
        typed(2, *given, logs=tmp_path)
    (mistake,) = said(printed(tmp_path).err)
    assert line in mistake
    assert "process 1" not in mistake
    assert {failure.exitcode for failure in ended.value.failures.values()} <= {2, 128 + signal.SIGTERM}
    assert not (tmp_path / "run").exists()


def fails_in_process_1() -> None:
    """Let the cut go wrong in one process while the other goes on to the next exchange."""
    from coprune.pipeline import context as steps
    from coprune.pipeline import run_folder

    cut = steps.cut

    def broken(*given):
        if rank() == 1:
            raise UserError("this process finds its disk broken")
        return cut(*given)

    steps.cut = broken
    clear = run_folder._clear

    def slow(folder):
        time.sleep(0.2)  # the launcher's signal comes amid it
        clear(folder)

    run_folder._clear = slow


def test_a_mistake_of_one_ends_all_and_names_it(small_base, digits, tmp_path):
    out, logs = tmp_path / "run", tmp_path / "logs"
    command = words("prune", small_base, digits, out, "--method", "magnitude", "--keep-macs", "0.5")
    started = time.monotonic()
    with pytest.raises(ChildFailedError):
        typed(2, *command, logs=logs, before=fails_in_process_1)
    assert said(printed(logs).err) == ["coprune: process 1: this process finds its disk broken"]
    assert not out.exists()
    assert time.monotonic() - started < 60


def processes_of(out: Path) -> dict[int, int]:
    """Rank → number of the process that works for a folder."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, told = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        place = re.search(rb"(?:^|\0)RANK=(\d+)", told)
        if place and str(out).encode() in command:
            found[int(place[1])] = int(process.name)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_killed_process_ends_the_run_and_it_resumes(small_base, digits, tmp_path, coprune):
    out, whole = tmp_path / "run", tmp_path / "whole"
    more = ("--method", "magnitude", "--keep-macs", "0.5", "--finetune-epochs", "5", "--batch-size", "32")
    given = list(map(str, words("prune", small_base, digits, out, *more)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "coprune"]
    running = subprocess.Popen(
        [*launcher, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    try:
        while not (out / "work" / "finetune.safetensors").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.02)
        os.kill(processes_of(out)[1], signal.SIGKILL)
        killed = time.monotonic()
        _, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert time.monotonic() - killed < 20
    assert running.returncode != 0
    assert said(err) == [
        "coprune: stopped: another process of this run has ended, or the launcher was stopped; "
        f"{out} keeps what is done, the same command with --resume continues"
    ]
    assert (out / "work").is_dir()
    # With as many processes the end is that of an undisturbed run; one alone can end it too.
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-r", str(out), str(copied)], check=True)
    assert typed(2, *words("prune", small_base, digits, out, *more, "--resume"), logs=tmp_path) == [0, 0]
    assert typed(2, *words("prune", small_base, digits, whole, *more), logs=tmp_path) == [0, 0]
    for name in ("plan.json", "model.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert coprune(*words("prune", small_base, digits, copied, *more, "--resume")).code == 0
    assert kept(copied) == kept(whole)
    assert read(copied, "result.json")["processes"] == 1
