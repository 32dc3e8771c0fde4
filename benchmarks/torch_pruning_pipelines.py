"""Torch-Pruning's own pruners as its examples use them, beside ours: same network, budgets, images, training.

python benchmarks/torch_pruning_pipelines.py --out benchmarks/results/torch_pruning.json
python benchmarks/torch_pruning_pipelines.py --rates 0.005 0.02 0.05 0.1 --seeds 1 --out out.json

A pruner steps until the budget is reached. Rows: as it leaves the network, with batch norms measured again,
with our least squares, and, with ``--rates``, after an equal
training that begins with each of them, at the rate that is best on calibration images.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

import coprune
import made_with
from coprune import surgery
from coprune.data import DataSet, limited, load_data
from coprune.files import write_json
from coprune.groups import find_units
from coprune.measure import count_macs, evaluate
from coprune.pipeline.environment import versions
from coprune.plan import GroupDecision
from coprune.recovery import Pair, find_recovery, kept_outputs
from coprune.store import open_model
from coprune.task import TASKS
from coprune.training import DivergedError, Recipe, fit

STEPS = 200
NEAR = 1.02  # of the budget is near enough: a step takes a channel of every layer at once
Pruner = Callable[[nn.Module, Tensor, list[nn.Module]], Any]
MAGNITUDE = partial(tp.importance.GroupMagnitudeImportance, p=2)


def made(kind: type, *, whole: bool, isomorphic: bool = False) -> Pruner:
    """A pruner with its class's defaults, whose ratio goes up to nearly everything."""

    def of(model: nn.Module, example: Tensor, ignored: list[nn.Module]) -> Any:
        return kind(
            model,
            example,
            importance=MAGNITUDE(),
            global_pruning=whole,
            isomorphic=isomorphic,
            pruning_ratio=0.95,
            iterative_steps=STEPS,
            ignored_layers=ignored,
        )

    return of


PIPELINES: dict[str, Pruner] = {
    "MagnitudePruner, local": made(tp.pruner.MagnitudePruner, whole=False),
    "MagnitudePruner, global": made(tp.pruner.MagnitudePruner, whole=True),
    "MagnitudePruner, isomorphic": made(tp.pruner.MagnitudePruner, whole=True, isomorphic=True),
    "GroupNormPruner": made(tp.pruner.GroupNormPruner, whole=True),
}
SPARSE = "GroupNormPruner"  # which trains towards sparse groups before it prunes
OURS = "complementary"


def sparse(model: nn.Module, pruner: Any, data: DataSet, *, images: int, seed: int) -> None:
    """An epoch of the pruner's own regularised training."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    pruner.update_regularizer()
    for x, y in limited(data.training, images, seed=seed).epoch(128, seed=seed, epoch=0):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        pruner.regularize(model)
        optimizer.step()
    model.eval()


@dataclass(frozen=True)
class Cut:
    """What a pipeline leaves.

    Attributes:
        model: pruned.
        teacher: what it was cut from.
        decisions: one a group of ours, or none that could be told.
    """

    model: nn.Module
    teacher: nn.Module
    decisions: tuple[GroupDecision, ...]


def cut(name: str, base: nn.Module, data: DataSet, share: float, *, images: int, seed: int) -> Cut:
    """What a pipeline leaves at a share of the MACs."""
    example = next(iter(data.calibration.batches(1)))[0]
    if name == OURS:
        found = coprune.prune(
            base,
            calibration=list(data.calibration.batches(250)),
            units=("inner", "coupled"),
            keep_macs=share,
            recovery="none",
            seed=seed,
            latency_batches=(1,),
        )
        return Cut(found.model, base, found.plan.groups)
    model = copy.deepcopy(base)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    pruner = PIPELINES[name](model, example, [last])
    if name == SPARSE:
        sparse(model, pruner, data, images=images, seed=seed)
    teacher = copy.deepcopy(model)
    allowed = NEAR * share * count_macs(base, example)
    while count_macs(model, example) > allowed:
        pruner.step()
    return Cut(model, teacher, decided(teacher, example, pruner.pruning_history()))


def decided(
    teacher: nn.Module, example: Tensor, history: Sequence[tuple[str, bool, list[int]]]
) -> tuple[GroupDecision, ...]:
    """The pruner's steps, each on what those before it had left, as decisions on our groups."""
    groups = find_units(teacher, example, coupled=True, first=True).groups
    left = {group.name: list(range(group.size)) for group in groups}
    of = {member.layer: group.name for group in groups for member in group.of_role("producer")}
    for layer, outputs, gone in history:
        if not outputs:
            raise ValueError(f"{layer}: inputs were pruned first")
        kept = left[of[layer]]
        left[of[layer]] = [unit for at, unit in enumerate(kept) if at not in set(gone)]
    return tuple(group.decision(left[group.name], "as the pruner decided") for group in groups)


def starts(made: Cut, data: DataSet, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """The network as cut, and recovered."""
    yield "none", made.model
    example = next(iter(data.calibration.batches(8)))[0]
    for recovery in ("bn", "least-squares"):
        # Our cut by the same decisions is the same network; only so is it known which channels are left.
        model = surgery.cut(made.teacher, made.decisions)
        with torch.no_grad():
            torch.testing.assert_close(model(example), made.model(example), rtol=1e-3, atol=1e-3)
        kept = kept_outputs(made.teacher, made.decisions)
        pair = Pair(model, made.teacher, kept, made.decisions, "cpu", TASKS["classification"])
        find_recovery(recovery).run(pair, data.calibration, seed=seed)
        yield recovery, model


def trained(model: nn.Module, base: nn.Module, data: DataSet, args: argparse.Namespace, seed: int) -> dict:
    """Held-out top-1 after the equal training, at the rate that calibration images like best."""
    best: tuple[float, float, nn.Module] | None = None
    for rate in args.rates:
        one = copy.deepcopy(model)
        recipe = Recipe(epochs=1, lr=rate, images=args.images, distill=0.9)
        try:
            fit(one, data.training, recipe, seed=seed, teacher=base)
        except DivergedError:
            continue
        value = evaluate(one, data.calibration).value
        if best is None or value > best[0]:
            best = value, rate, one
    return {"rate": best[1], "trained": evaluate(best[2], data.heldout).value} if best else {}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="coprune:resnet20@fashion-mnist")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.26])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000, help="of a training")
    parser.add_argument("--rates", type=float, nargs="*", default=())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = open_model(args.model, arguments={}, offered={}).eval()
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        data = load_data(args.data, calibration=args.calibration, seed=seed)
        whole = evaluate(base, data.heldout).value
        example = next(iter(data.calibration.batches(1)))[0]
        for share in args.budgets:
            for name in (OURS, *PIPELINES):
                torch.manual_seed(seed)
                model = cut(name, base, data, share, images=args.images, seed=seed)
                left = count_macs(model.model, example) / count_macs(base, example)
                for recovery, start in starts(model, data, seed):
                    row = {"pipeline": name, "budget": share, "seed": seed, "recovery": recovery}
                    row |= {"macs_ratio": left, "value": evaluate(start, data.heldout).value}
                    row |= trained(start, base, data, args, seed) if args.rates else {}
                    rows.append(row)
                    print(json.dumps(row), flush=True)
        content = {"model": args.model, "data": args.data, "calibration": args.calibration, "base": whole}
        content |= {"images": args.images, "rates": args.rates, "seeds": seed + 1, "rows": rows}
        write_json(args.out, made_with.stamped({**content, "versions": versions()}))


if __name__ == "__main__":
    main()
