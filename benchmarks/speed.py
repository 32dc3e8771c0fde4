"""Two promises about speed, measured.

    python benchmarks/speed.py --out benchmarks/results/speed.json

1. The profile pass (class moments, default and every pixel) against a plain evaluation pass over the
   same images, in turn, ratio of medians.
2. Every k from 2 to n − 1 of a group of 512 units: k-medoids, silhouettes, knee.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from coprune.cosep.clusters import cluster_every_k
from coprune.cosep.knee import find_knee
from coprune.cosep.silhouette import mean_simplified_silhouette
from coprune.data import load_data
from coprune.files import write_json
from coprune.measure import evaluate
from coprune.profile import ClassMoments, gather
from coprune.run.environment import versions
from coprune.run.steps import prepare
from coprune.store import open_model


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def profile_pass(repeats: int, images: int) -> list[dict]:
    data = load_data("fashion-mnist-sample", calibration=images)
    model = open_model("coprune:resnet20@fashion-mnist", arguments={}, offered={})
    groups = prepare(model, data).units.groups
    rows = []
    for grid in (1, 4, 0):
        wanted = [ClassMoments(grid=grid)]

        def plain() -> None:
            evaluate(model, data.calibration)

        def profile(wanted: list[ClassMoments] = wanted) -> None:
            gather(model, groups, data.calibration, wanted, classes=data.classes)

        plain(), profile()
        pairs = [(timed(plain), timed(profile)) for _ in range(repeats)]
        rows.append(
            {
                "grid": grid,
                "images": len(data.calibration),
                "plain_s": statistics.median(p for p, _ in pairs),
                "profile_s": statistics.median(q for _, q in pairs),
                "ratio": statistics.median(q / p for p, q in pairs),
                "repeats": repeats,
            }
        )
    return rows


def k_curve(units: int, repeats: int) -> dict:
    seconds = []
    for seed in range(repeats):
        generator = torch.Generator().manual_seed(seed)
        points = torch.rand(units, 45, generator=generator, dtype=torch.float64)
        points *= torch.rand(units, 1, generator=generator, dtype=torch.float64)
        distance = torch.cdist(points, points)

        def whole(distance: torch.Tensor = distance, seed: int = seed) -> None:
            found = cluster_every_k(distance, seed=seed)
            curve = [mean_simplified_silhouette(distance, c, variant="paper") for c in found]
            find_knee(range(2, 2 + len(curve)), curve, units=units, fit="polynomial")

        seconds.append(timed(whole))
    return {"units": units, "seconds": statistics.median(seconds), "worst": max(seconds), "repeats": repeats}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--units", type=int, default=512)
    args = parser.parse_args()
    result = {
        "schema": 1,
        "threads": torch.get_num_threads(),
        "profile_pass": profile_pass(args.repeats, args.images),
        "k_curve": k_curve(args.units, max(1, args.repeats // 3)),
        "versions": versions(),
    }
    write_json(args.out, result)
    for row in result["profile_pass"]:
        print(f"grid {row['grid']}: profile pass {row['ratio']:.2f} x a plain pass")
    print(f"k-curve of {args.units} units: {result['k_curve']['seconds']:.2f} s")


if __name__ == "__main__":
    main()
