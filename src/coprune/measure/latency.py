"""Milliseconds of a forward pass, base against pruned, measured so that a noisy machine is fair to both.

The two models run in turn on the same inputs, so a slow moment hits both; the ratio is taken pair by
pair and its median reported. Warm-up passes are not counted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import bdtr  # scipy.stats would take a second to import
from torch import nn

from coprune.result import Latency
from coprune.tracing.forward import Inputs, moved, part_of, run


@dataclass(frozen=True)
class LatencyPlan:
    """How to measure.

    Attributes:
        batches: batch sizes.
        repeats: pairs of forward passes for each.
        seconds: stop a batch size after this long, but not before five pairs.
        warmup: passes that are not counted; fewer, but one, where they take longer than ``seconds``.
    """

    batches: tuple[int, ...] = (1, 32)
    repeats: int = 50
    seconds: float = 5.0
    warmup: int = 5


Run = Callable[[Inputs], object]
"""One forward pass."""


@torch.inference_mode()
def _once(run: Run, inputs: Inputs, device: str) -> float:
    started = time.perf_counter()
    run(inputs)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e3


def measure_latency(
    base: nn.Module, pruned: nn.Module, example: Inputs, plan: LatencyPlan, *, device: str = "cpu"
) -> tuple[Latency, ...]:
    """Measure both models in turn, in PyTorch.

    Args:
        base, pruned: put into evaluation mode, and on the device.
        example, plan, device: see :func:`measure_engine`.

    Returns:
        One entry a batch size; milliseconds.
    """
    full, small = (functools.partial(run, model.to(device).eval()) for model in (base, pruned))
    return measure_engine(full, small, example, plan, engine="torch", device=device)


def measure_engine(
    base: Run, pruned: Run, example: Inputs, plan: LatencyPlan, *, engine: str, device: str = "cpu"
) -> tuple[Latency, ...]:
    """Measure two models in turn, whatever runs them.

    Args:
        base: one forward pass of the unpruned model.
        pruned: of the smaller one.
        example: one sample ``[1, …]``, repeated to each batch size.
        plan: how long and how often.
        engine: what runs them, for the result.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        One entry a batch size; milliseconds.
    """
    found = []
    for batch in plan.batches:
        inputs = moved(part_of(example, [0] * batch), device)
        started = time.perf_counter()
        for number in range(plan.warmup):
            if number and time.perf_counter() - started > plan.seconds:
                break
            _once(base, inputs, device)
            _once(pruned, inputs, device)
        pairs: list[list[float]] = []
        started = time.perf_counter()
        while len(pairs) < plan.repeats:
            if len(pairs) >= 5 and time.perf_counter() - started > plan.seconds:
                break
            # Whoever goes second finds warmer caches: take turns.
            turn = -1 if len(pairs) % 2 else 1
            pairs.append([_once(run, inputs, device) for run in (base, pruned)[::turn]][::turn])
        found.append(_summary(np.array(pairs), batch=batch, engine=engine, device=device))
    return tuple(found)


def median_ms(model: nn.Module, example: Inputs, *, repeats: int = 30, device: str = "cpu") -> float:
    """Median milliseconds of one sample, warmed up.

    Args:
        model: put into evaluation mode, and on the device.
        example: one sample or more, of which the first is taken.
        repeats: passes that are timed.
        device: ``"cpu"`` or ``"cuda"``.
    """
    once, inputs = functools.partial(run, model.to(device).eval()), moved(part_of(example, [0]), device)
    for _ in range(5):
        _once(once, inputs, device)
    return float(np.median([_once(once, inputs, device) for _ in range(repeats)]))


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a median by order statistics, whatever the distribution; of few values, all of them.

    As many of ``n`` values are below their median as heads in ``n`` throws of a coin (Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2).
    """
    ordered, count = np.sort(values), len(values)
    quantile = int(np.searchsorted(bdtr(np.arange(count + 1), count, 0.5), 0.025))
    outside = max(0, quantile - 1)
    return float(ordered[outside]), float(ordered[count - 1 - outside])


def _summary(pairs: np.ndarray, *, batch: int, engine: str, device: str) -> Latency:
    """Median and 10th to 90th percentile of ``[R, 2]`` milliseconds."""
    low, middle, high = np.percentile(pairs, (10, 50, 90), axis=0)
    ratios = pairs[:, 0] / pairs[:, 1]
    return Latency(
        engine=engine,
        device=device,
        threads=torch.get_num_threads(),
        batch=batch,
        base_ms=float(middle[0]),
        pruned_ms=float(middle[1]),
        base_spread_ms=(float(low[0]), float(high[0])),
        pruned_spread_ms=(float(low[1]), float(high[1])),
        ratio=float(np.median(ratios)),
        ratio_interval=median_interval(ratios),
        repeats=len(pairs),
    )
