"""Distances of a thousand classes, exact and sketched: seconds, memory, agreement.

python benchmarks/speed_distances.py 2048 1000 exact    # one group alone: prints seconds and peak bytes

"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch

from coprune.clustering.assignment import heaviest
from coprune.clustering.distances import profile_distances
from coprune.clustering.distances_lowrank import sketched_distances
from coprune.clustering.kmedoids import cluster_every_k
from coprune.groups import find_units
from coprune.methods.cosep import CoSePSettings
from coprune.statistics.moments import Moments
from speed_moments import drawn, of_resnet50

SETTINGS = CoSePSettings()


def distances(moments: Moments, how: str) -> tuple[torch.Tensor, float, object]:
    """Distances, seconds, and the sketch when it was one."""
    started = time.perf_counter()
    sketch = None
    if how == "exact":
        found = profile_distances(moments, relative_eps=SETTINGS.variance_eps)
    else:
        sketch = sketched_distances(moments, relative_eps=SETTINGS.variance_eps, tolerance=SETTINGS.tolerance)
        found = sketch.distance
    return found, time.perf_counter() - started, sketch


def peak_bytes() -> int:
    """The most that this process has held. The kernel's own count: getrusage's begins with the parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def alone(units: int, classes: int, how: str) -> dict:
    """One group in a process of its own: seconds, peak of memory, and how far that lies above the start."""
    command = [sys.executable, __file__, str(units), str(classes), how]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resnet50_sizes() -> dict[str, dict[int, int]]:
    """Width → how many: of all 53 convolutions, and of the groups that prune them (inner and coupled)."""
    import torchvision

    model = torchvision.models.resnet50(weights=None).eval()
    convs = Counter(m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    groups = Counter(g.size for g in find_units(model, torch.zeros(1, 3, 64, 64), coupled=True).groups)
    return {"layers": dict(convs), "groups": dict(groups)}


def of_network(sizes: dict[str, dict[int, int]], *, classes: int) -> dict:
    """Each width measured once, in a process of its own, and counted as often as it occurs."""
    widths = sorted(set(sizes["layers"]) | set(sizes["groups"]))
    rows = [{"units": u} | {how: alone(u, classes, how) for how in ("exact", "sketch")} for u in widths]
    by_width = {row["units"]: row for row in rows}
    totals = {
        part: {
            how: sum(n * by_width[u][how]["seconds"] for u, n in counts.items())
            for how in ("exact", "sketch")
        }
        | {"count": sum(counts.values()), "units": sum(u * n for u, n in counts.items())}
        for part, counts in sizes.items()
    }
    return {"classes": classes, "widths": rows, "totals": totals}


def kept_half(distance: torch.Tensor, weight: torch.Tensor) -> set[int]:
    """What CoSeP keeps at half budget."""
    k = len(weight) // 2
    return set(heaviest(cluster_every_k(distance, seed=0)[k - 2], weight.numpy()).tolist())


def agreement(layers: list[str], *, classes: int, images: int, size: int) -> list[dict]:
    """Units that exact and sketched distances both keep at half budget; the error found and the bound."""
    rows = []
    for name, moments in of_resnet50(layers, classes=classes, images=images, size=size).items():
        exact, exact_s, _ = distances(moments, "exact")
        approximate, sketch_s, sketch = distances(moments, "sketch")
        weight = torch.rand(len(exact), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        kept = kept_half(exact, weight)
        pairs = classes * (classes - 1) / 2
        rows.append(
            {
                "layer": name,
                "units": len(exact),
                "exact_s": exact_s,
                "sketch_s": sketch_s,
                "rank": sketch.rank,
                "bound": sketch.bound_a_pair,
                "worst": float((exact - approximate).abs().max()) / pairs**0.5,
                "typical": float(exact[~torch.eye(len(exact), dtype=torch.bool)].median()) / pairs**0.5,
                "same": len(kept & kept_half(approximate, weight)) / len(kept),
            }
        )
    return rows


def growth(*, classes: list[int], units: list[int], at_units: int, at_classes: int) -> dict:
    """Seconds, exact and sketched, with the classes and with the units."""
    found: dict[str, list[dict]] = {"classes": [], "units": []}
    for name, points in (("classes", classes), ("units", units)):
        for x in points:
            moments = drawn(x, at_units) if name == "classes" else drawn(at_classes, x)
            found[name].append({"x": x} | {how: distances(moments, how)[1] for how in ("exact", "sketch")})
    return found | {"at_units": at_units, "at_classes": at_classes}


def main() -> None:
    units, classes, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    moments = drawn(classes, units)
    distances(drawn(10, 16), how)  # what torch loads at first use is no part of it
    before = peak_bytes()
    _, seconds, _ = distances(moments, how)
    peak = peak_bytes()
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "above_bytes": peak - before}))


if __name__ == "__main__":
    main()
