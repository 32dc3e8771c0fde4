"""Which reading of CoSeP's open points comes nearest to the published MACs ratios?

    python benchmarks/cosep_variants.py MODEL=RUN_FOLDER ... --out benchmarks/results/cosep_variants.json

For every combination of pixel grid, place of the activation, space, silhouette and knee: the MACs
ratio that the knee leads to, one-shot, on trained networks. Published on CIFAR-10 (arXiv 2505.13225):
ResNet-56 2.15x, VGG-16 2.59x. No accuracy is looked at, so nothing is tuned on held-out data.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import made_with
from coprune.budget.counts import Budget
from coprune.budget.decide import counts
from coprune.data import load_data
from coprune.methods.cosep import COSEP, CoSePSettings
from coprune.pipeline.context import Context
from coprune.pipeline.environment import versions
from coprune.store import open_model

PUBLISHED = {"resnet56": 2.15, "vgg16_bn": 2.59}
KNEES = [("interpolate", 2), ("polynomial", 2), ("polynomial", 6)]


def ratios(name: str, folder: str, data_name: str, seeds: int, grids: list[int]) -> list[dict]:
    rows: dict[tuple, list[float]] = {}
    fallbacks: dict[tuple, int] = {}
    for seed in range(seeds):
        data = load_data(data_name, calibration=2000, seed=seed)
        model = open_model(folder, arguments={}, offered={})
        context = Context.of(model, data, device="cpu")
        combos = list(
            itertools.product(
                grids, ("consumer", "producer"), ("profile", "tsne"), ("paper", "nearest"), KNEES
            )
        )
        settings = {
            c: CoSePSettings(grid=c[0], at=c[1], space=c[2], mss=c[3], knee=c[4][0], knee_degree=c[4][1])
            for c in combos
            # t-SNE is the expensive one: pooled and per-pixel at the consumer show what it does.
            if c[2] == "profile" or (c[1] == "consumer" and c[0] != 4)
        }
        known: dict = {}
        for grid, at in sorted({(s.grid, s.at) for s in settings.values()}):
            wanted = COSEP.needs(CoSePSettings(grid=grid, at=at))
            profile = context.statistics(wanted, known=known)
            known = dict(profile.tensors)
        for combo, setting in settings.items():
            choices = COSEP.choose(profile, setting, seed)
            found, _ = counts(Budget(), context.cost, choices)
            rows.setdefault(combo, []).append(1 / context.cost.ratio(found))
            fallbacks[combo] = fallbacks.get(combo, 0) + sum(c.knee.fallback is not None for c in choices)
    return [
        {
            "model": name,
            "grid": c[0],
            "at": c[1],
            "space": c[2],
            "mss": c[3],
            "knee": c[4][0],
            "knee_degree": c[4][1],
            "macs_reduction": r,
            "fallbacks": fallbacks[c],
        }
        for c, r in rows.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="NAME=RUN_FOLDER or NAME=coprune:NET@DATA")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grids", type=int, nargs="+", default=[1, 4, 0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for text in args.models:
        name, _, folder = text.partition("=")
        rows += ratios(name, folder, args.data, args.seeds, args.grids)
        print(name, "done", flush=True)
    keys = ("grid", "at", "space", "mss", "knee", "knee_degree")
    distance: dict[tuple, list[float]] = {}
    for row in rows:
        if row["model"] in PUBLISHED:
            mean = sum(row["macs_reduction"]) / len(row["macs_reduction"])
            distance.setdefault(tuple(row[k] for k in keys), []).append(
                abs(math.log(mean / PUBLISHED[row["model"]]))
            )
    ranked = sorted(
        ({**dict(zip(keys, c, strict=True)), "distance": sum(d) / len(d)} for c, d in distance.items()),
        key=lambda r: r["distance"],
    )
    made_with.write(
        args.out,
        {
            "schema": 1,
            "data": args.data,
            "seeds": args.seeds,
            "published": PUBLISHED,
            "rows": rows,
            "ranked": ranked,
            "versions": versions(),
        },
    )
    for r in ranked[:10]:
        print(r)


if __name__ == "__main__":
    main()
