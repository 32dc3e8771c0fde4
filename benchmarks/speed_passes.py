"""The profile pass against a plain evaluation pass, in turn, and the time until names and help are there."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from coprune.data import LoaderSource, Source, load_data
from coprune.groups import ChannelGroup, find_units
from coprune.measure import evaluate
from coprune.pipeline.context import Context
from coprune.statistics import Calibration, ClassMoments, collect
from coprune.store import open_model

HELP = "import sys; sys.argv = ['coprune', '--help']; from coprune.cli.main import main; main()"
STARTS = {"bare": "pass", "import": "import coprune", "help": HELP}


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _against_plain(
    model: torch.nn.Module,
    groups: tuple[ChannelGroup, ...],
    source: Source,
    *,
    classes: int,
    grid: int,
    batch: int,
    repeats: int,
) -> dict:
    def plain() -> None:
        evaluate(model, source, batch_size=batch)

    def profile() -> None:
        collect(Calibration(model, groups, source, classes, batch_size=batch), [ClassMoments(grid=grid)])

    plain(), profile()
    pairs = [(timed(plain), timed(profile)) for _ in range(repeats)]
    return {
        "grid": grid,
        "images": len(source),
        "classes": classes,
        "plain_s": statistics.median(p for p, _ in pairs),
        "profile_s": statistics.median(q for _, q in pairs),
        "ratio": statistics.median(q / p for p, q in pairs),
        "repeats": repeats,
    }


def _resnet20(images: int) -> tuple[torch.nn.Module, tuple[ChannelGroup, ...], Source]:
    data = load_data("fashion-mnist-sample", calibration=images)
    model = open_model("coprune:resnet20@fashion-mnist", arguments={}, offered={})
    return model, Context.of(model, data, device="cpu").units.groups, data.calibration


def resnet20(*, images: int, repeats: int) -> list[dict]:
    """Pooled, 4 × 4 cells, every pixel; Fashion-MNIST."""
    model, groups, source = _resnet20(images)
    return [
        {"model": "resnet20"}
        | _against_plain(model, groups, source, classes=10, grid=grid, batch=250, repeats=repeats)
        for grid in (1, 4, 0)
    ]


def resnet50(*, images: int, size: int, repeats: int) -> list[dict]:
    """Pooled, with ten and with a thousand classes, inner and coupled groups, random images."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    x = torch.randn(images, 3, size, size)
    groups = find_units(model, x[:1], coupled=True).groups
    rows = []
    for classes in (10, 1000):
        data = torch.utils.data.TensorDataset(x, torch.arange(images) * 37 % classes)
        source = LoaderSource(torch.utils.data.DataLoader(data, batch_size=16), images)
        made = _against_plain(model, groups, source, classes=classes, grid=1, batch=16, repeats=repeats)
        rows.append({"model": "resnet50", "size": size} | made)
    return rows


def growth_with_images(counts: list[int], *, repeats: int) -> list[dict]:
    """Seconds of the pooled profile pass of ResNet-20."""
    rows = []
    for images in counts:
        model, groups, source = _resnet20(images)
        wanted = [ClassMoments(grid=1)]
        run = [timed(lambda: collect(Calibration(model, groups, source, 10), wanted)) for _ in range(repeats)]  # noqa: B023
        rows.append({"x": images, "seconds": statistics.median(run)})
    return rows


def start(*, repeats: int) -> dict[str, float]:
    """Median seconds until a new process has imported, or printed help; ``bare``: an empty one."""
    found: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(repeats):
        for name, code in STARTS.items():
            command = [sys.executable, "-c", code]
            found[name].append(timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)))  # noqa: B023
    return {name: statistics.median(seconds) for name, seconds in found.items()}
