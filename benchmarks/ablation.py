"""What each ingredient of ``complementary`` is worth: one of them changed at a time, no training.

python benchmarks/ablation.py resnet20=coprune:resnet20@fashion-mnist --out benchmarks/results/ablation.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import made_with
from coprune.pipeline.compare import run_compare
from coprune.pipeline.compare_job import CompareJob

VARIANTS: dict[str, dict] = {
    "as it is": {"recoveries": ("least-squares", "bn", "none")},
    "choice without sensitivity": {"options": {"weighting": "none"}},
    "choice with class scatter": {"options": {"scatter": 1.0}},
    "allocation uniform": {"allocations": ("uniform",)},
    "choice at random, allocation uniform": {"methods": ("random",)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--keep-macs", type=float, nargs="+", default=(0.5, 0.26))
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("benchmarks/runs/ablation"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found, versions = [], {}
    for name, model in (word.split("=", 1) for word in args.models):
        for number, (variant, changed) in enumerate(VARIANTS.items()):
            job = CompareJob(
                **{
                    "model": model,
                    "data": args.data,
                    "methods": ("complementary",),
                    "budgets": tuple(args.keep_macs),
                    "seeds": args.seeds,
                    "calibration": args.calibration,
                    **changed,
                }
            )
            made = run_compare(job, out=args.runs / f"{name}-{number}", resume=True)
            versions = made.versions
            rows = [row.model_dump(mode="json") for row in made.rows]
            found.append({"model": name, "variant": variant, "base": made.base.value, "rows": rows})
            print(name, variant, flush=True)
    named = {"data": args.data, "calibration": args.calibration, "seeds": args.seeds}
    made_with.write(args.out, {**named, "variants": found, "versions": versions})


if __name__ == "__main__":
    main()
