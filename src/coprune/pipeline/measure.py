"""``coprune measure``: figures of a stored model, against the unpruned one where its source is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from coprune.errors import UserError, near_matches, setting
from coprune.export import FORMATS, check_against, samples_of_sizes, traced_program
from coprune.folders import check_idle
from coprune.measure import (
    LatencyPlan,
    count_macs,
    count_params,
    evaluate,
    measure_engine,
    measure_latency,
    peak_memory,
)
from coprune.measure.memory import check_batches
from coprune.memory import check_shape
from coprune.pipeline.environment import pick_device, set_up
from coprune.pipeline.jobs import Measuring
from coprune.pipeline.opening import open_data
from coprune.pipeline.which_task import task_for
from coprune.plan import Plan
from coprune.report import sentences
from coprune.report import write as write_page
from coprune.result import Latency, Result
from coprune.store import load
from coprune.store.model import describe, full_size
from coprune.store.tensors import tensor_file_size
from coprune.tracing.forward import Inputs, check_takes, part_of

ENGINES = ("torch", "onnxruntime")

PROMISED = 0.8
"""Share of the promised speed below which the terminal says what may help."""


def measure_run(run: Path, asked: Measuring) -> Iterator[str]:
    """Lines for the terminal; what was timed is noted in the run's ``result.json`` and on its page.

    Args:
        run: the run folder.
        asked: what is measured, and on what.

    Raises:
        UserError: an unknown engine, a model that does not take the data or cannot be exported.
    """
    for engine in asked.engine:
        if engine not in ENGINES:
            raise UserError(f"{setting('engine', engine)}: {near_matches(engine, ENGINES)}")
    if not asked.engine:
        raise UserError(f"{setting('engine')} names none; known: {', '.join(ENGINES)}")
    check_idle(run)
    device = pick_device(asked.device)
    set_up(threads=asked.threads, seed=0)
    model = load(run, trust=asked.trust)
    if asked.data:
        loaded = open_data(asked.data, model=str(run))
        example, _ = next(iter(loaded.heldout.batches(1)))
    else:
        check_shape(asked.input_shape)
        example = torch.zeros(1, *asked.input_shape)
    check_takes(model, example)
    check_batches(model, example, asked.latency_batches, name="latency_batches", device=device)
    # Latency does not depend on the values of the weights: a fresh full-size model will do.
    base = full_size(run, trust=asked.trust)
    yield from (_sizes(name, net, example) for name, net in (("unpruned", base), ("this run", model)) if net)
    if asked.data:
        task = task_for(model, loaded, asked.asked_of(describe(run).notes.get("task")))
        if task.judged.reads_targets:
            score = evaluate(model, loaded.heldout, task=task, device=device)
            yield f"{score.words} on {score.samples:,} held-out samples"
    plan = LatencyPlan(batches=asked.latency_batches)
    timed = [
        entry for name in asked.engine for entry in _timed(name, base or model, model, example, plan, device)
    ]
    for entry in timed:
        took = f"{entry.base_ms:.2f} → {entry.pruned_ms:.2f} ms, {speedup(entry)}"
        if base is None:
            took = f"{entry.pruned_ms:.2f} ms; the unpruned model is not recorded"
        yield (
            f"batch {entry.batch}, {entry.threads} threads, {entry.engine} on {entry.device}: {took} "
            f"(median of {entry.repeats} pairs)"
        )
    if base is not None and (run / "plan.json").is_file() and (run / "result.json").is_file():
        share = count_macs(model, example) / count_macs(base, example)
        yield from filter(None, [promise_note(timed, share=share, plan=Plan.load(run / "plan.json"))])
        note_latency(run, timed)
        yield f"noted in {run / 'result.json'}"


def _sizes(name: str, network: nn.Module, example: Inputs) -> str:
    return (
        f"{name}: {count_macs(network, example) / 1e6:.2f} M MACs, {count_params(network):,} parameters, "
        f"{tensor_file_size(network.state_dict()) / 1e6:.2f} MB, "
        f"peak memory {peak_memory(network, example) / 1e6:.2f} MB"
    )


def _timed(
    engine: str, base: nn.Module, pruned: nn.Module, example: Inputs, plan: LatencyPlan, device: str
) -> tuple[Latency, ...]:
    """Both networks in turn, in PyTorch or as ONNX Runtime runs them."""
    if engine == "torch":
        return measure_latency(base, pruned, example, plan, device=device)
    onnx, pair = FORMATS["onnx"], part_of(example, [0, 0])
    full, small = (onnx.runner(onnx.content(traced_program(net, pair))) for net in (base, pruned))
    check_against(pruned, small, samples_of_sizes(example), reader=onnx.reader)
    return measure_engine(full, small, example, plan, engine=engine)


def speedup(entry: Latency) -> str:
    """How much faster, in words; or that the figures do not say."""
    if entry.conclusive:
        return f"{entry.ratio:.2f}× as fast"
    return sentences.speed(entry)


def promise_note(timed: Sequence[Latency], *, share: float, plan: Plan) -> str | None:
    """A line where time falls short of the MACs by more than a fifth, and whole blocks were not asked for.

    Convolutions are computed in blocks of 8 or 16 channels, so 9 may cost as much as 16, and ONNX Runtime
    leaves its fast layout where a depthwise layer's channels fill no whole blocks (docs/networks.md).

    Args:
        timed: what was measured.
        share: MACs of the pruned model over the unpruned one's, in (0, 1].
        plan: of the run; one without channels, or with ``round_to``, has nothing to gain.
    """
    short = [entry for entry in timed if entry.conclusive and entry.ratio * share < PROMISED]
    channels = any(group.kind in ("inner", "coupled") for group in plan.groups)
    if not short or not channels or plan.settings.get("round_to", 1) > 1 or share == 1:
        return None
    worst = min(short, key=lambda entry: entry.ratio)
    return (
        f"the MACs promise {1 / share:.2f}×, {worst.engine} at batch {worst.batch} comes to "
        f"{worst.ratio:.2f}×: "
        f"numbers of channels that fill no whole blocks cost time; try {setting('round_to', '8')}"
    )


def note_latency(run: Path, timed: Sequence[Latency]) -> None:
    """Add times to a run's figures; one of the same engine, device, threads and batch is replaced.

    Raises:
        UserError: the run's files are damaged, or cannot be written.
    """

    def place(entry: Latency) -> tuple[object, ...]:
        return entry.engine, entry.device, entry.threads, entry.batch

    result = Result.load(run / "result.json")
    found = {place(entry): entry for entry in (*result.latency, *timed)}
    result.model_copy(update={"latency": tuple(found.values())}).save(run / "result.json")
    write_page(run)
