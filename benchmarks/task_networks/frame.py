"""What a file of this folder says of its network, and how it is pruned and measured.

A file ``NAME.py`` has a function ``case(smoke, folder)`` that makes a :class:`Case`: the trained network,
samples to calibrate on, held-out ones, and budgets. ``folder`` is where it keeps what it trains; ``smoke``
asks for the smallest thing of the kind, in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import coprune


@dataclass(frozen=True)
class Variant:
    """One way to prune.

    Attributes:
        method, allocation, recovery: as of :func:`coprune.prune`.
        options: further ones, such as the method's own.
    """

    method: str
    allocation: str = "uniform"
    recovery: str = "least-squares"
    options: Mapping[str, Any] = field(default_factory=dict)


AS_IT_IS = Variant("complementary", "auto", "auto")
COMMON = (AS_IT_IS, Variant("complementary"), Variant("magnitude"), Variant("random"))
"""The default; and it and what everybody compares with under the same allocation and recovery."""


@dataclass(frozen=True)
class Judge:
    """A figure that is worked out beside the run, where the task's own metric is another.

    Attributes:
        metric: its name.
        value: of a network.
        higher_is_better, unit: see :class:`coprune.tasks.metrics.Metric`.
    """

    metric: str
    value: Callable[[nn.Module], float]
    higher_is_better: bool = True
    unit: str = ""


@dataclass(frozen=True)
class Case:
    """A network of one kind of work.

    Attributes:
        task: its name.
        network: in a few words.
        made: how the network and the samples were made, in a sentence or two.
        model: trained.
        calibration, heldout: batches, again and again; of ``heldout`` with what the metric reads.
        budgets: shares that are left.
        budget_of: the option that takes them.
        options: of :func:`coprune.prune`, for all variants alike: ``units``, ``metric``, ``outputs``, …
        variants: ways to prune.
        seeds: how many; of what is asked for, the first ones.
        judge: a figure in place of the run's own.
        more: further figures of a pruned network, by their names.
    """

    task: str
    network: str
    made: str
    model: nn.Module
    calibration: Iterable[Any]
    heldout: Iterable[Any]
    budgets: Sequence[float]
    budget_of: str = "keep_macs"
    options: Mapping[str, Any] = field(default_factory=dict)
    variants: Sequence[Variant] = COMMON
    seeds: int = 3
    judge: Judge | None = None
    more: Mapping[str, Callable[[nn.Module], float]] = field(default_factory=dict)


def rows(
    case: Case, *, seeds: int, device: str = "cpu", done: Sequence[Mapping[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """A row for every budget, variant and seed but those that are done."""
    keys = ("budget", "method", "allocation", "recovery", "seed")
    known = {tuple(row[key] for key in keys) for row in done}
    case = replace(case, options={**case.options, "device": device})
    before = case.judge.value(case.model) if case.judge else None
    for budget in case.budgets:
        for variant in case.variants:
            for seed in range(min(seeds, case.seeds)):
                if (budget, variant.method, variant.allocation, variant.recovery, seed) in known:
                    continue
                yield _row(case, variant, budget=budget, seed=seed, before=before)


def _row(case: Case, variant: Variant, *, budget: float, seed: int, before: float | None) -> dict[str, Any]:
    started = time.perf_counter()
    outcome = coprune.prune(
        case.model,
        calibration=case.calibration,
        eval=case.heldout,
        task=case.task,
        seed=seed,
        **{
            "method": variant.method,
            "allocation": variant.allocation,
            "recovery": variant.recovery,
            "latency_batches": (1,),
            case.budget_of: budget,
            **case.options,
            **variant.options,
        },
    )
    seconds = time.perf_counter() - started
    base, last = outcome.result.stages[0], outcome.result.stages[-1]
    figures = {
        "metric": last.metric,
        "unit": last.unit,
        "higher_is_better": last.higher_is_better,
        "before": base.value,
        "after": last.value,
    }
    if case.judge:
        figures = {
            "metric": case.judge.metric,
            "unit": case.judge.unit,
            "higher_is_better": case.judge.higher_is_better,
            "before": before,
            "after": case.judge.value(outcome.model),
        }
    (timed,) = outcome.result.latency
    return {
        "task": case.task,
        "network": case.network,
        "method": variant.method,
        "allocation": variant.allocation,
        "recovery": variant.recovery,
        "budget": budget,
        "budget_of": case.budget_of,
        "seed": seed,
        **figures,
        "more": {name: value(outcome.model) for name, value in case.more.items()},
        "macs_ratio": last.macs / base.macs,
        "params_ratio": last.params / base.params,
        "base_ms": timed.base_ms,
        "pruned_ms": timed.pruned_ms,
        "latency_ratio": timed.ratio,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "seconds_of": dict(outcome.result.seconds),
        "device": timed.device,
        "left_whole": len(outcome.plan.skipped),
    }


def trained(model: nn.Module, file: Path, train: Callable[[nn.Module], None]) -> nn.Module:
    """The network with the weights of a file, which training makes where it is not there yet."""
    if file.is_file():
        model.load_state_dict(load_file(file))
        return model.eval()
    train(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    return model.eval()


def descend(
    model: nn.Module,
    samples: Sequence[torch.Tensor],
    loss: Callable[..., torch.Tensor],
    *,
    epochs: int,
    lr: float,
    batch_size: int = 32,
) -> None:
    """Adam down a loss of (output, target), the rate falling to nothing in one line.

    Args:
        model: in training mode afterwards.
        samples: inputs and targets, samples first.
        loss: of a batch.
        epochs, lr, batch_size: of the training.
    """
    torch.manual_seed(0)
    inputs, targets = samples
    steps = epochs * -(-len(inputs) // batch_size)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
    model.train()
    for _ in range(epochs):
        for at in torch.randperm(len(inputs)).split(batch_size):
            optimizer.zero_grad()
            loss(model(inputs[at]), targets[at]).backward()
            optimizer.step()
            falling.step()
