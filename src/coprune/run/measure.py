"""``coprune measure``: figures of a stored model, against the unpruned one where its source is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from coprune.data import load_data
from coprune.measure import (
    LatencyPlan,
    count_macs,
    count_params,
    evaluate,
    measure_latency,
    peak_memory,
)
from coprune.models import build, source_of
from coprune.run.environment import pick_device, set_up
from coprune.run.steps import check_takes
from coprune.store import load
from coprune.store.tensors import tensor_file_size


def measure_run(
    run: Path,
    *,
    data: str | None,
    shape: tuple[int, ...],
    batches: tuple[int, ...],
    threads: int | None,
    device: str,
    trust: bool = False,
) -> Iterator[str]:
    """Lines for the terminal.

    Args:
        run: the run folder.
        data: name of the data whose held-out part gives accuracy, or None.
        shape: of one sample, where no data is given.
        batches: batch sizes to time.
        threads: CPU threads.
        device: where to time.
        trust: run the ``python:`` factory that the folder names.
    """
    where = pick_device(device)
    set_up(threads=threads, seed=0)
    model = load(run, trust=trust)
    loaded = load_data(data, calibration=0) if data else None
    example = next(iter(loaded.heldout.batches(1)))[0] if loaded else torch.zeros(1, *shape)
    check_takes(model, example)
    source = source_of(model)
    # Latency does not depend on the values of the weights: a fresh full-size model will do.
    base = build(source) if source else model
    for name, network in (("unpruned", base), ("this run", model)):
        yield (
            f"{name}: {count_macs(network, example) / 1e6:.2f} M MACs, {count_params(network):,} parameters, "
            f"{tensor_file_size(network.state_dict()) / 1e6:.2f} MB, "
            f"peak memory {peak_memory(network, example) / 1e6:.2f} MB"
        )
    if loaded:
        score = evaluate(model, loaded.heldout, device=where)
        yield f"top-1 {score.top1:.2%} on {score.samples:,} held-out samples"
    for entry in measure_latency(base, model, example, LatencyPlan(batches=batches), device=where):
        yield (
            f"batch {entry.batch}, {entry.threads} threads, {entry.device}: {entry.base_ms:.2f} → "
            f"{entry.pruned_ms:.2f} ms, {entry.ratio:.2f}× as fast (median of {entry.repeats} pairs)"
        )
