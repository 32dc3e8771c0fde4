"""``--max-drop``: does what was promised on calibration data hold on held-out data, and is it small?

For each seed: what the search took; and, from sizes around it judged on the held-out samples, the
smallest model that would have held. Only the benchmark looks at those.

python benchmarks/max_drop.py coprune:resnet20@fashion-mnist --out benchmarks/results/max_drop.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import made_with
from coprune.budget.counts import Budget
from coprune.errors import UserError
from coprune.pipeline.jobs import PruneJob
from coprune.pipeline.judging import SOLVED_ON
from coprune.pipeline.prune import run_prune
from coprune.pipeline.settings import PruneSettings


def pruned(model: str, data: str, *, budget: Budget, calibration: int, seed: int) -> dict:
    """``result.json`` of one ``coprune prune``."""
    settings = PruneSettings(budget=budget, seed=seed, latency_batches=())
    job = PruneJob(model=model, data=data, calibration=calibration, settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        run = run_prune(job, out=Path(folder) / "run")
        return json.loads((run / "result.json").read_text())


def size_and_loss(result: dict) -> dict:
    base, last = result["stages"][0], result["stages"][-1]
    return {"macs": last["macs"] / base["macs"], "heldout_drop": 100 * (base["value"] - last["value"])}


def searched(result: dict) -> dict:
    """What the search took, what it knew of it, and what that loses on held-out samples."""
    chosen = next(p for p in result["search"] if p["chosen"])
    known = {"calibration_drop": chosen["drop"], "low": chosen["low"], "high": chosen["high"]}
    seconds = result["seconds"]["profile"] + result["seconds"]["select"]
    return {**size_and_loss(result), **known, "seconds": seconds}


def around(model: str, data: str, *, start: dict, limit: float, seed: int, step: float) -> list[dict]:
    """Sizes a step apart: downwards until two in a row lose too much, upwards until one does not."""
    down = start["heldout_drop"] <= limit
    sizes, share, ended = [], start["macs"], 0
    while ended < (2 if down else 1):
        share = share * step if down else share / step
        if not 0.01 < share < 1:
            break
        budget = Budget(keep_macs=share)
        try:
            result = pruned(model, data, budget=budget, calibration=SOLVED_ON, seed=seed)
        except UserError:
            break  # one unit in every group costs more
        sizes.append(size_and_loss(result))
        held = sizes[-1]["heldout_drop"] <= limit
        ended = ended + 1 if held != down else 0
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--calibration", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--step", type=float, default=0.95, help="from one judged size to the next")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows, sizes, versions = [], [], {}
    for model in args.models:
        for seed in range(args.seeds):
            budget = Budget(max_drop=args.max_drop)
            result = pruned(model, args.data, budget=budget, calibration=args.calibration, seed=seed)
            versions = result["versions"]
            row = searched(result)
            tried = around(model, args.data, start=row, limit=args.max_drop, seed=seed, step=args.step)
            rows.append({"model": model, "seed": seed, **row})
            sizes.extend({"model": model, "seed": seed, **size} for size in tried)
            print(rows[-1], tried, flush=True)
    named = {"data": args.data, "max_drop": args.max_drop, "calibration": args.calibration}
    made_with.write(args.out, {**named, "rows": rows, "sizes": sizes, "versions": versions})


if __name__ == "__main__":
    main()
