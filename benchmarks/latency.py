"""What pruned networks save in milliseconds, against what their MACs promise, in PyTorch and ONNX Runtime.

The default at a half and a quarter of the MACs, with any number of channels and with multiples of 8; base
and pruned network run in turn.

python benchmarks/latency.py coprune:resnet20@fashion-mnist FOLDER --out benchmarks/results/latency.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path

import torch

import made_with
from coprune.budget.counts import Budget
from coprune.errors import UserError
from coprune.pipeline.environment import versions
from coprune.pipeline.jobs import Measuring, PruneJob
from coprune.pipeline.measure import ENGINES, measure_run
from coprune.pipeline.prune import run_prune
from coprune.pipeline.settings import PruneSettings


def timed(model: str, data: str, *, keep: float, round_to: int, args: argparse.Namespace) -> list[dict]:
    """A row an engine and batch size."""
    settings = PruneSettings(
        budget=Budget(keep_macs=keep), round_to=round_to, latency_batches=(), threads=args.threads
    )
    job = PruneJob(model=model, data=data, calibration=args.calibration, settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        run = run_prune(job, out=Path(folder) / "run")
        batches = tuple(args.batches)
        asked = Measuring(
            data=data, latency_batches=batches, threads=args.threads, device="cpu", engine=ENGINES
        )
        for line in measure_run(run, asked):
            print(line, flush=True)
        result = json.loads((run / "result.json").read_text())
    base, last = result["stages"][0], result["stages"][-1]
    macs = last["macs"] / base["macs"]
    return [
        {
            "model": model,
            "keep": keep,
            "round_to": round_to,
            "macs": macs,
            "lost": 100 * (base["value"] - last["value"]),
            "of_promise": entry["ratio"] * macs,
            **entry,
        }
        for entry in result["latency"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--round-to", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--remark", default="", help="about the machine, such as: nothing else ran")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows, refused = [], []
    for model, keep, round_to in product(args.models, args.keep, args.round_to):
        try:
            rows += timed(model, args.data, keep=keep, round_to=round_to, args=args)
        except UserError as why:  # groups too narrow for such multiples
            refused.append({"model": model, "keep": keep, "round_to": round_to, "why": str(why)})
    content = {
        "data": args.data,
        "calibration": args.calibration,
        "threads": args.threads,
        "refused": refused,
    }
    found = {**versions(), "onnxruntime": _onnxruntime(), "cpu": torch.backends.cpu.get_cpu_capability()}
    made_with.write(args.out, {**content, "remark": args.remark, "rows": rows, "versions": found})


def _onnxruntime() -> str:
    import onnxruntime

    return onnxruntime.__version__


if __name__ == "__main__":
    main()
