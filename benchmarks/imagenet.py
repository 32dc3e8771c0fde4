"""A network with its ImageNet weights, on photographs: choices under one allocation, without training.

python benchmarks/imagenet.py --weights lite0.safetensors --images imagenet_sample --out imagenet.json
python benchmarks/imagenet.py … --methods complementary --recoveries reconstruction    # beside those there

Every split draws other photographs to calibrate on and to judge. Needs weights and ``labels.csv`` with its
images, which are nobody's to hand on (docs/results.md says where these came from).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import imagenet_images
import made_with
from coprune.files import write_json
from coprune.pipeline.compare import run_compare
from coprune.pipeline.compare_job import CompareJob
from coprune.pipeline.environment import versions

METHODS = ("complementary", "fpgm", "magnitude", "random")


def drawn(folder: Path, count: int = 48) -> None:
    """Noise with labels, for a smoke test."""
    draw = random.Random(0)
    lines = ["file,label"]
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
        lines.append(f"{number}.jpg,{draw.randrange(5)}")
    (folder / "labels.csv").write_text("\n".join(lines))


def split(number: int, args: argparse.Namespace) -> dict[str, Any]:
    """All rows of one split."""
    imagenet_images.SPLIT = number
    with tempfile.TemporaryDirectory() as out:
        job = CompareJob(
            model=args.model,
            weights=str(args.weights) if args.weights else None,
            data="python:imagenet_images:loaders",
            calibration=imagenet_images.CALIBRATION,
            methods=args.methods,
            budgets=args.budgets,
            allocations=("measured",),
            recoveries=args.recoveries,
            seeds=1,
            seed=number,
            threads=args.threads,
            force=args.smoke,
        )
        found = run_compare(job, out=Path(out) / "cmp").model_dump(mode="json")
    return {"split": number, "base": found["base"], "rows": found["rows"]}


def merged(content: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The content with a split's rows in the place of those of the same kind."""

    def kind(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["method"], row["budget"], row["allocation"], row["recovery"]

    splits = {part["split"]: part for part in content.get("splits", ())}
    old = splits.get(new["split"], {}).get("rows", [])
    fresh = {kind(row) for row in new["rows"]}
    rows = [row for row in old if kind(row) not in fresh] + new["rows"]
    splits[new["split"]] = {**new, "rows": rows}
    return {**content, "splits": [splits[number] for number in sorted(splits)]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.85, 0.7, 0.5])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--recoveries", nargs="+", default=["least-squares"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="noise and a tiny network, in seconds")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as noise:
        if args.smoke:
            drawn(Path(noise))
            args.images, args.model, args.size = Path(noise), "timm:test_efficientnet", 32
            args.budgets, args.splits = [0.7], args.splits[:1]
            imagenet_images.CALIBRATION, imagenet_images.HELDOUT = 32, 16
        imagenet_images.FOLDER, imagenet_images.SIZE = args.images, args.size
        for number in args.splits:
            before = json.loads(args.out.read_text()) if args.out.is_file() else {}
            content = before | {
                "model": args.model,
                "calibration": imagenet_images.CALIBRATION,
                "versions": versions(),
            }
            write_json(args.out, made_with.stamped(merged(content, split(number, args)), since=before))


if __name__ == "__main__":
    main()
