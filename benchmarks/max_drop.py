"""``--max-drop``: does what was promised on calibration data hold on held-out data?

python benchmarks/max_drop.py --seeds 5 --out benchmarks/results/max_drop.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from coprune.files import write_json
from coprune.run.job import PruneJob, run_prune
from coprune.run.settings import PruneSettings
from coprune.select import Budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="coprune:resnet20@fashion-mnist")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--calibration", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows, versions = [], {}
    for seed in range(args.seeds):
        settings = PruneSettings(budget=Budget(max_drop=args.max_drop), seed=seed, latency_batches=())
        job = PruneJob(model=args.model, data=args.data, calibration=args.calibration, settings=settings)
        with tempfile.TemporaryDirectory() as folder:
            run = run_prune(job, out=Path(folder) / "run")
            result = json.loads((run / "result.json").read_text())
        chosen = next(p for p in result["search"] if p["chosen"])
        stages = {s["name"]: s for s in result["stages"]}
        last = result["stages"][-1]
        rows.append(
            {
                "seed": seed,
                "macs": last["macs"] / stages["base"]["macs"],
                "calibration_drop": chosen["drop"],
                "low": chosen["low"],
                "high": chosen["high"],
                "heldout_drop": 100 * (stages["base"]["value"] - last["value"]),
                "seconds": result["seconds"]["select"],
            }
        )
        versions = result["versions"]
        print(rows[-1], flush=True)
    named = {"model": args.model, "data": args.data, "max_drop": args.max_drop}
    write_json(args.out, {**named, "calibration": args.calibration, "rows": rows, "versions": versions})


if __name__ == "__main__":
    main()
