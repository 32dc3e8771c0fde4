"""Seconds and peak memory of choice, allocation and recovery on networks of real size, against a plain pass.

python benchmarks/real_size.py --out benchmarks/results/real_size.json
python benchmarks/real_size.py --networks torchvision:vgg16_bn --out out.json

Weights are random and images noise: neither changes what is computed. Each network has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import coprune
import made_with
from coprune.files import write_json
from coprune.pipeline.environment import versions
from coprune.store import open_model

NETWORKS = ("timm:tf_efficientnet_lite0", "torchvision:resnet50", "timm:vit_small_patch16_224")
STAGES = ("profile", "select", "recover")


def resident() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak:
    """The most that the process holds from now on, looked at fifty times a second."""

    def __init__(self) -> None:
        self.start = self.most = resident()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, resident())
            time.sleep(0.02)


@torch.no_grad()
def noise(model: nn.Module, samples: int, size: int) -> torch.Tensor:
    """Images that differ, to which the model's batch norms are set."""
    images = F.interpolate(torch.randn(samples, 3, size // 8, size // 8), size=(size, size))
    images += 0.1 * torch.randn_like(images)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.5
        norm.train()
    for at in range(0, 64, 16) if norms else ():
        model(images[at : at + 16])
    model.eval()
    return images


@torch.no_grad()
def plain_pass(model: nn.Module, images: torch.Tensor) -> float:
    """Seconds of one pass over all images."""
    started = time.perf_counter()
    for part in images.split(32):
        model(part)
    return time.perf_counter() - started


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One network, in this process."""
    torch.manual_seed(0)
    model = open_model(name, arguments={}, offered={}).eval()
    images = noise(model, args.samples, args.size)
    before, peak = plain_pass(model, images), Peak()
    found = coprune.prune(
        model,
        calibration=list(images.split(50)),
        keep_macs=args.keep_macs,
        latency_batches=(1,),
        force=True,
        threads=args.threads,
    )
    most = peak.most
    # Before and after: other work on the machine comes and goes.
    plain = (before + plain_pass(model, images)) / 2
    seconds = {stage: found.result.seconds[stage] for stage in STAGES}
    return {
        "network": name,
        "macs": found.result.stages[0].macs,
        "samples": args.samples,
        "pass": plain,
        "seconds": seconds,
        "passes": sum(seconds.values()) / plain,
        "start": peak.start,
        "above": most - peak.start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--keep-macs", type=float, default=0.7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", action="store_true", help="in this process, as JSON")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        print(json.dumps(measured(args.networks[0], args)))
        return
    if args.out is None:
        parser.error("--out is missing")
    options = [f"--samples={args.samples}", f"--size={args.size}", f"--threads={args.threads}"]
    options += [f"--keep-macs={args.keep_macs}", "--one"]
    rows: list[dict[str, Any]] = []
    for name in args.networks:
        words = [sys.executable, __file__, "--networks", name, *options]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
        rows.append(json.loads(ended.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
        content = {"keep_macs": args.keep_macs, "size": args.size, "threads": args.threads, "rows": rows}
        write_json(args.out, made_with.stamped({**content, "versions": versions()}))


if __name__ == "__main__":
    main()
