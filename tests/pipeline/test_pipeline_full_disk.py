"""A disk that is really full: what is dearest is there, and the run goes on once there is room."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

import coprune as package
import tiny
from commands import grown
from coprune.data.dataset import in_memory
from coprune.errors import UnwrittenError
from coprune.files import append_line, write_text
from coprune.training import Checkpoint, Recipe, fit


def filled(disk: Path, *, left: int) -> Path:
    """A file that leaves so many bytes, to the page."""
    found = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(found.f_bavail * found.f_frsize - left))
    return filler


def test_a_page_that_does_not_fit_leaves_model_plan_and_figures(coprune, base, digits, small_disk, tmp_path):
    common = ("prune", "--model", base, "--data", digits, "--threads", 1, "--latency-batches", 1)
    typed = (*common, "--keep-macs", "0.5", "--finetune-epochs", 1, "--out")
    run = small_disk / "run"
    grown(small_disk, "2m")
    ended = coprune(*typed, run)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith(f"coprune: {run}/report.html: no free disk for ")
    assert line.endswith(
        f"; free some and go on: {run} keeps what is done, the same command with --resume continues"
    )
    package.load(run)
    assert json.loads((run / "result.json").read_text())["units"]["kept"]
    assert coprune("inspect", run).code == 0
    assert not (run / "report.html").exists()
    assert coprune(*typed, run, "--resume").code == 2
    grown(small_disk)
    assert coprune(*typed, run, "--resume").code == 0
    assert coprune(*typed, tmp_path / "whole").code == 0
    for file in ("plan.json", "model.safetensors"):
        assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert {p.name for p in run.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_statistics_give_way_to_the_model(coprune, base, digits, small_disk):
    typed = ("prune", "--model", base, "--data", digits, "--threads", 1, "--latency-batches", 1)
    run = small_disk / "run"
    filler = filled(small_disk, left=200_000)
    ended = coprune(*typed, "--keep-macs", "0.5", "--out", run)
    assert ended.code == 2
    assert ended.err.splitlines()[0].startswith("coprune: ")
    package.load(run)
    for name in ("plan.json", "result.json"):
        json.loads((run / name).read_text())
    filler.unlink()
    grown(small_disk)
    assert coprune(*typed, "--keep-macs", "0.5", "--out", run, "--resume").code == 0
    assert (run / "profile" / "profile.json").is_file()


def test_a_checkpoint_that_does_not_fit_does_not_end_the_training(small_disk, capsys):
    filled(small_disk, left=40_000)
    recipe = Recipe(epochs=2, batch_size=16, lr=0.05)
    source = in_memory([(torch.randn(32, 1, 12, 12), torch.arange(32) % 3)])
    networks = [tiny.network("resnet20", seed=0) for _ in range(2)]
    fit(networks[0], source, recipe, seed=0, checkpoint=Checkpoint(small_disk / "work" / "c.safetensors"))
    fit(networks[1], source, recipe, seed=0)
    assert tiny.same_state(networks[0].state_dict(), networks[1].state_dict())
    (said,) = capsys.readouterr().err.splitlines()
    assert "no free disk" in said
    assert said.endswith("; this checkpoint is left out, the run goes on")
    assert [p.name for p in small_disk.rglob("*")] in (["filler", "work"], ["work", "filler"])


def test_a_file_and_a_line_that_do_not_fit_leave_what_was_there(small_disk):
    write_text(small_disk / "plan.json", "old")
    append_line(small_disk / "log.jsonl", "x" * 4000)
    filled(small_disk, left=0)
    with pytest.raises(UnwrittenError, match="no free disk for 5,000 bytes"):
        write_text(small_disk / "plan.json", "n" * 5000)
    with pytest.raises(UnwrittenError, match="no free disk for 5,001 bytes"):
        append_line(small_disk / "log.jsonl", "y" * 5000)
    assert (small_disk / "plan.json").read_text() == "old"
    assert (small_disk / "log.jsonl").read_text() == "x" * 4000 + "\n"
    assert sorted(p.name for p in small_disk.iterdir()) == ["filler", "log.jsonl", "plan.json"]
