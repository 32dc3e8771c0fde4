"""What it costs: profile pass, distances of a thousand classes, the curve of every k, and how each grows.

    python benchmarks/speed.py --out benchmarks/results/speed.json [--gbfs-python PYTHON]

Parts (``--parts``, all by default; what the file has of other parts stays):

    choice     choice and recovery of the default, without training, on networks of growing depth
    passes     the profile pass against a plain evaluation pass in turn (ResNet-20, ResNet-50); start-up
    distances  ResNet-50's widths with 1,000 classes, exact and sketched, each in a process of its own
    agreement  what exact and sketched distances both keep, on moments of a ResNet-50
    curve      every k, against independent FasterPAM runs
    gbfs       the authors' own package on the same samples; ``--gbfs-python`` names a Python that has it
    growth     with classes, units and images

``--small`` is for tests: the same with sizes that take seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import made_with
import speed_choice
import speed_curves
import speed_distances
import speed_passes
from coprune.pipeline.environment import versions


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    repeats: int = 9
    depths: tuple[str, ...] = ("resnet20", "resnet56", "resnet110")
    calibration: int = 1000
    chosen: int = 2
    images: int = 1500
    images50: int = 64
    pixels50: int = 224
    classes: int = 1000
    per_class: int = 8
    pixels: int = 64
    layers: tuple[str, ...] = (
        "conv1",
        "layer2.0.conv2",
        "layer1.2.conv3",
        "layer4.2.conv1",
        "layer3.5.conv3",
        "layer4.2.conv3",
    )
    curve: tuple[int, ...] = (512, 2048)
    looked_at: int = 16
    published: int = 512
    grow_classes: tuple[int, ...] = (10, 30, 100, 300, 1000)
    grow_units: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    at_units: int = 256
    at_classes: int = 100
    grow_images: tuple[int, ...] = (250, 500, 1000, 2000)


SMALL = Sizes(
    repeats=1,
    depths=("resnet20",),
    calibration=100,
    chosen=1,
    images=250,
    images50=2,
    pixels50=32,
    classes=20,
    per_class=3,
    pixels=32,
    layers=("conv1", "layer1.0.conv1"),
    curve=(64,),
    looked_at=4,
    published=24,
    grow_classes=(10, 20),
    grow_units=(16, 32),
    at_units=16,
    at_classes=10,
    grow_images=(250, 500),
)


def choice(s: Sizes, python: Path | None) -> dict:
    return {"choice": speed_choice.of_depths(s.depths, images=s.calibration, repeats=s.chosen)}


def passes(s: Sizes, python: Path | None) -> dict:
    rows = speed_passes.resnet20(images=s.images, repeats=s.repeats)
    rows += speed_passes.resnet50(images=s.images50, size=s.pixels50, repeats=max(1, s.repeats // 2))
    return {"profile_pass": rows, "start": speed_passes.start(repeats=s.repeats)}


def distances(s: Sizes, python: Path | None) -> dict:
    small = {"layers": {64: 7}, "groups": {64: 7}}
    sizes = small if s is SMALL else speed_distances.resnet50_sizes()
    return {"distances": speed_distances.of_network(sizes, classes=s.classes)}


def agreement(s: Sizes, python: Path | None) -> dict:
    rows = speed_distances.agreement(list(s.layers), classes=s.classes, images=s.per_class, size=s.pixels)
    return {
        "agreement": {"classes": s.classes, "tolerance": speed_distances.SETTINGS.tolerance, "rows": rows}
    }


def curve(s: Sizes, python: Path | None) -> dict:
    starts = ("previous", "best") if s is SMALL else ("auto",)
    rows = [speed_curves.independent(u, count=s.looked_at, start=t) for u in s.curve for t in starts]
    return {"curve": rows}


def gbfs(s: Sizes, python: Path | None) -> dict:
    return {"gbfs": speed_curves.published(python, units=s.published, count=s.looked_at)}


def growth(s: Sizes, python: Path | None) -> dict:
    found = speed_distances.growth(
        classes=list(s.grow_classes), units=list(s.grow_units), at_units=s.at_units, at_classes=s.at_classes
    )
    found["curve"] = speed_curves.growth(list(s.grow_units))
    found["images"] = speed_passes.growth_with_images(list(s.grow_images), repeats=3)
    return {"growth": found}


PARTS: dict[str, Callable[[Sizes, Path | None], dict]] = {
    part.__name__: part for part in (choice, passes, distances, agreement, curve, gbfs, growth)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--gbfs-python", type=Path)
    parser.add_argument("--remark", default="", help="stands under the tables, e.g. what else was running")
    args = parser.parse_args()
    sizes = SMALL if args.small else Sizes()
    result = json.loads(args.out.read_text()) if args.out.is_file() else {}
    if result.get("schema") != 2:
        result = {"schema": 2}
    older = dict.fromkeys(result.get("measured", {}), result)
    for part in args.parts.split(","):
        measured = PARTS[part](sizes, args.gbfs_python)
        circumstances = {"threads": torch.get_num_threads(), "remark": args.remark}
        result["measured"] = {**result.get("measured", {}), part: circumstances}
        result |= measured | {"versions": versions()}
        older.pop(part, None)
        made_with.write(args.out, result, since=next(iter(older.values()), None))
        print(part, json.dumps(measured))


if __name__ == "__main__":
    main()
