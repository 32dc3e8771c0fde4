"""A folder for every row, filled from one training and one pruning."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from attack import World
from torch import nn

import coprune as package
from digits import write_digits


@pytest.fixture(scope="session")
def pruned_run(base: Path, digits: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of half of the base."""
    from coprune.budget.counts import Budget
    from coprune.pipeline.jobs import PruneJob
    from coprune.pipeline.prune import run_prune
    from coprune.pipeline.settings import PruneSettings

    out = tmp_path_factory.mktemp("pruned") / "run"
    settings = PruneSettings(
        budget=Budget(keep_macs=0.5), latency_seconds=0.05, latency_batches=(1,), threads=1
    )
    return run_prune(PruneJob(model=str(base), data=digits, settings=settings), out=out)


@pytest.fixture
def world(base: Path, pruned_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """See :class:`attack.World`."""
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(pruned_run, tmp_path / "run")
    write_digits(tmp_path / "digits.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    archive = np.load(tmp_path / "digits.npz")
    batches = {
        part: [
            (torch.from_numpy(archive[f"x_{part}"][at : at + 16]).float() / 255, labels)
            for at in range(0, len(archive[f"y_{part}"]) - 15, 16)
            for labels in [torch.from_numpy(archive[f"y_{part}"][at : at + 16])]
        ]
        for part in ("train", "test")
    }
    names = {
        "coprune": package,
        "torch": torch,
        "nn": nn,
        "np": np,
        "net": package.load("base"),
        "pruned": package.load("run"),
        "batches": batches["train"],
        "test": batches["test"],
    }
    return World(tmp_path, names)
