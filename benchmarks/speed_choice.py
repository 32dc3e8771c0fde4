"""Seconds of the default's choice and recovery, no training, on one kind of network of growing depth."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from coprune.budget.counts import Budget
from coprune.data import load_data
from coprune.pipeline.prune import prune_model
from coprune.pipeline.settings import PruneSettings
from coprune.store import open_model

STEPS = ("profile", "select", "surgery", "recover")
# Seconds do not depend on what a network has learned.
HALF = PruneSettings(budget=Budget(keep_macs=0.5), latency_batches=(1,), latency_seconds=0.1, force=True)


def of_depths(names: Sequence[str], *, images: int, repeats: int) -> dict:
    """Half of the MACs, as ``result.json`` has the seconds; weights are drawn, which changes no count.

    Args:
        names: networks of the project.
        images: for calibration, of the bundled Fashion-MNIST sample.
        repeats: runs of each, of which the median counts.
    """
    data = load_data("fashion-mnist-sample", calibration=images)
    # No figure here is one of held-out samples.
    data = replace(data, heldout=data.heldout.take(torch.arange(images)))
    rows = []
    for name in names:
        runs = []
        for _ in range(repeats):
            model = open_model(f"coprune:{name}", arguments={}, offered={"in_channels": 1, "num_classes": 10})
            runs.append(prune_model(model, data, HALF).result)
        seconds = {step: statistics.median(run.seconds[step] for run in runs) for step in STEPS}
        rows.append({"model": name, "macs": runs[0].stage("base").macs, "seconds": seconds})
    return {"images": images, "repeats": repeats, "keep_macs": 0.5, "rows": rows}
