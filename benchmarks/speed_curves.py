"""The whole k-curve: seconds, against independent FasterPAM runs, and against the authors' package."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

import kmedoids
import numpy as np
import torch

from coprune.clustering.distances import profile_distances
from coprune.clustering.kmedoids import cluster_every_k
from coprune.clustering.knee import find_knee
from coprune.clustering.silhouette import silhouette_curve
from coprune.statistics.moments import Moments, batch_moments

HERE = Path(__file__).resolve().parent


def points(units: int, *, seed: int = 0) -> torch.Tensor:
    """Distances of drawn points in 45 dimensions, some nearer to the middle than others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(units, 45, generator=generator, dtype=torch.float64)
    x *= torch.rand(units, 1, generator=generator, dtype=torch.float64)
    return torch.cdist(x, x)


def whole_curve(distance: torch.Tensor, *, start: str = "auto") -> tuple[float, list]:
    """Seconds for every k from 2 to U − 1, silhouettes and knee; the clusterings."""
    started = time.perf_counter()
    found = cluster_every_k(distance, seed=0, start=start)
    curve = silhouette_curve(distance, found, variant="paper")
    find_knee(range(2, 2 + len(curve)), curve, units=len(distance), fit="polynomial")
    return time.perf_counter() - started, found


def growth(units: list[int]) -> list[dict]:
    return [{"x": u, "seconds": whole_curve(points(u))[0]} for u in units]


def independent(units: int, *, count: int, start: str) -> dict:
    """FasterPAM from random starts for ``count`` values of k, evenly spread, against the same k of ours.

    The time of all k is the mean of those looked at, times their number.
    """
    distance = points(units)
    seconds, found = whole_curve(distance, start=start)
    d = distance.numpy()
    ks = sorted({int(k) for k in np.linspace(2, units - 1, count)})
    started = time.perf_counter()
    losses = [kmedoids.fasterpam(d, k, init="random", random_state=0, n_cpu=1).loss for k in ks]
    spent = time.perf_counter() - started
    ours = [found[k - 2].loss for k in ks]
    return {
        "units": units,
        "start": start,
        "looked_at": len(ks),
        "curve_s": seconds,
        "independent_s": spent / len(ks) * (units - 2),
        "objective": sum(ours) / sum(losses),
        "worst": max(a / b for a, b in zip(ours, losses, strict=True)),
    }


def samples(units: int, *, classes: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn activations ``[N, U]`` and their labels."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(classes, 6, generator=generator) @ torch.randn(6, units, generator=generator)
    noise = torch.randn(classes * each, units, generator=generator)
    noise *= 0.5 + 2 * torch.rand(1, units, generator=generator)
    return (mean.repeat_interleave(each, 0) + noise).double(), torch.arange(classes).repeat_interleave(each)


def published(python: Path | None, *, units: int, count: int, classes: int = 10, each: int = 20) -> dict:
    """``gbfs`` against us, from the same samples: distances and the curve of every k.

    Its k-medoids takes minutes for a single k, so ``count`` of them are run and the others counted at their
    mean. Its variances are those of a population, and so are ours here.
    """
    if python is None:
        return {
            "skipped": "no --gbfs-python: an environment with gbfs 0.2.1, numpy < 2 and scikit-learn < 1.6"
        }
    x, labels = samples(units, classes=classes, each=each)
    ks = sorted({int(k) for k in np.linspace(2, units - 1, count)})
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "samples.csv", Path(folder) / "gbfs.json"
        # The first row is what features cost; it is not used.
        head = [",".join([f"u{u}" for u in range(units)] + ["class"]), ",".join(["1"] * (units + 1))]
        rows = [
            ",".join([*(f"{v!r}" for v in r), str(c)])
            for r, c in zip(x.tolist(), labels.tolist(), strict=True)
        ]
        table.write_text("\n".join([*head, *rows]) + "\n")
        command = [str(python), str(HERE / "gbfs_run.py"), str(table), "--k", ",".join(map(str, ks))]
        subprocess.run([*command, "--out", str(out)], check=True, stderr=subprocess.DEVNULL)
        theirs = json.loads(out.read_text())
    started = time.perf_counter()
    gathered = batch_moments(x.unsqueeze(2), labels, classes=classes)
    moments = Moments(gathered.count, gathered.mean, gathered.m2 * (each - 1) / each)
    distance = profile_distances(moments, relative_eps=1e-12)
    distances_s = time.perf_counter() - started
    curve_s, found = whole_curve(distance)
    curve = sum(row["seconds"] for row in theirs["k"]) / len(ks) * (units - 2)
    ratios = [found[row["k"] - 2].loss / row["loss"] for row in theirs["k"]]
    return {
        "units": units,
        "classes": classes,
        "looked_at": len(ks),
        "theirs": {"separability_s": theirs["separability_s"], "curve_s": curve},
        "ours": {"separability_s": distances_s, "curve_s": curve_s},
        "ratio": (theirs["separability_s"] + curve) / (distances_s + curve_s),
        "objective": sum(found[row["k"] - 2].loss for row in theirs["k"])
        / sum(r["loss"] for r in theirs["k"]),
        "worst": max(ratios),
        "versions": theirs["versions"],
    }
