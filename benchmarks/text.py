"""MiniLM on film reviews: heads, and heads with neurons, each seed with a split and a base model of its own.

All of it takes hours: a part of it can be measured alone, and what ``--out`` has of the others stays.

python benchmarks/text.py --out benchmarks/results/text.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import made_with
from coprune.pipeline.compare import run_compare
from coprune.pipeline.compare_job import CompareJob
from film_reviews import RECIPE, base_model

# Soft labels and hidden outputs carry four times the rate that the base model is trained at.
EPOCH = RECIPE.model_copy(update={"epochs": 1, "lr": 2e-4, "distill": 0.9, "match": 10.0})

# CAHP's own schedule (docs/cahp.md): hard labels only.
CAHP = EPOCH.model_copy(update={"epochs": 3, "lr": 2e-5, "distill": 0.0, "match": 0.0})

PARTS: dict[str, dict[str, Any]] = {
    "heads": {
        "methods": (
            "complementary",
            "cahp",
            "michel",
            "head_magnitude",
            "medoid",
            "last_layers",
            "random",
        ),
        "budgets": (0.5, 0.25, 0.17),
        "budget_of": "heads",
    },
    "heads, trained": {
        "methods": ("complementary", "cahp", "michel"),
        "budgets": (0.25,),
        "budget_of": "heads",
        "finetune": EPOCH,
    },
    "heads and neurons": {
        "methods": ("complementary", "magnitude", "random"),
        "budgets": (0.5, 0.25),
    },
    "heads and neurons, trained": {
        "methods": ("complementary", "magnitude"),
        "budgets": (0.5, 0.25),
        "finetune": EPOCH,
    },
    "cahp at its knee": {
        "methods": ("cahp",),
        "budgets": ("knee",),
        "budget_of": "heads",
        "recoveries": ("none",),
        "finetune": CAHP,
    },
}


def earlier(out: Path, settings: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """(part, seed) → its comparison that a file already has.

    Raises:
        SystemExit: the file was made with other settings.
    """
    if not out.is_file():
        return {}
    content = json.loads(out.read_text())
    for name, value in settings.items():
        if content[name] != value:
            raise SystemExit(f"{out} has {name} {content[name]}, not {value}: give another --out")
    return {(made["part"], made["seed"]): made for made in content["comparisons"]}


def compared(part: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One part of the comparison with the base model of one seed; rows that are done are not done again."""
    model, data = base_model(
        seed, bases=args.bases, runs=args.runs, source=args.source, sentences=args.sentences
    )
    job = CompareJob(
        **{
            "model": str(model),
            "data": f"tsv:{data}",
            "calibration": args.calibration,
            "seed": seed,
            "seeds": 1,
            "force": args.force,
            **PARTS[part],
        }
    )
    job = job.model_copy(update={"finetune": job.finetune.model_copy(update={"precision": args.precision})})
    folder = f"{part.replace(',', '').replace(' ', '_')}-{seed}"
    made = run_compare(job, out=args.runs / folder, resume=True)
    return {
        "part": part,
        "seed": seed,
        "base": made.base.model_dump(mode="json"),
        "finetune": job.finetune.model_dump(mode="json"),
        "rows": [row.model_dump(mode="json") for row in made.rows],
        "versions": made.versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--precision", default="fp32", help="of all training after the pruning")
    parser.add_argument("--runs", type=Path, default=Path("benchmarks/runs/text"))
    parser.add_argument("--source", help="model to start from instead of MiniLM, such as hf:DIR")
    parser.add_argument("--sentences", type=int, help="use so many only")
    parser.add_argument("--force", action="store_true", help="go on with a base at chance, as in a smoke run")
    parser.add_argument("--bases", type=Path, default=Path("benchmarks/bases"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings = {"calibration": args.calibration, "precision": args.precision}
    older = dict.fromkeys(
        earlier(args.out, settings), json.loads(args.out.read_text()) if args.out.is_file() else {}
    )
    for part in args.parts:
        for seed in args.seeds:
            made = compared(part, seed, args)
            # Read again: another process may be measuring another part.
            found = earlier(args.out, settings) | {(part, seed): made}
            comparisons = [
                found[key] for key in sorted(found, key=lambda key: (list(PARTS).index(key[0]), key[1]))
            ]
            older.pop((part, seed), None)
            since = next(iter(older.values()), None)
            document = {**settings, "comparisons": comparisons, "versions": made["versions"]}
            made_with.write(args.out, document, since=since)
            print(part, seed, flush=True)


if __name__ == "__main__":
    main()
