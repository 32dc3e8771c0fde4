"""``max_drop`` on a network that has learned its training samples by heart: who judges, and does it hold?

Digits of 8×8 pixels (scikit-learn's, 1,797) in three parts, drawn anew for every seed: training, validation
and held out. A small network is trained until it has all training samples right, and pruned with a limit of
points that may be lost: judged on the validation samples, and, as without any, on training samples set aside.

python benchmarks/judged.py --out benchmarks/results/judged.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import coprune
import made_with
from coprune.data import ArraySource
from coprune.data.subsample import drawn_indices
from coprune.measure import evaluate
from coprune.training import Recipe, fit

RECIPE = Recipe(epochs=20, lr=0.1, batch_size=32)


def parts(seed: int, train: int) -> list[ArraySource]:
    """Training, validation and held-out digits, the latter two equally many."""
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float().unsqueeze(1)
    whole = ArraySource(images, torch.from_numpy(digits.target))
    found, left = [], torch.arange(len(whole))
    for count in (train, (len(whole) - train) // 2):
        drawn = drawn_indices(whole.labels[left], count, seed=seed)
        found.append(whole.take(left[drawn]))
        rest = torch.ones(len(left), dtype=torch.bool)
        rest[drawn] = False
        left = left[rest]
    return [*found, whole.take(left)]


def learned_by_heart(train: ArraySource, seed: int, device: str) -> nn.Module:
    """A network of three convolutions that has every training sample right."""
    torch.manual_seed(seed)

    def block(reads: int, makes: int, stride: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(reads, makes, 3, stride, 1, bias=False)
        return [layer, nn.BatchNorm2d(makes), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10)]
    model = nn.Sequential(*block(1, 16), *block(16, 32, 2), *block(32, 32), *head)
    for again in range(5):
        fit(model, train, RECIPE, seed=seed + 1000 * again, device=device)
        if evaluate(model, train, device=device).value == 1:
            return model.cpu()
    raise SystemExit(f"seed {seed}: not learned by heart")


def row(model: nn.Module, data: list[ArraySource], *, on: str, limit: float, seed: int) -> dict[str, Any]:
    """What one search took, and what it loses on held-out samples."""
    train, validation, heldout = ([*part.batches(len(part))] for part in data)
    result = coprune.prune(
        model,
        train=train,
        eval=heldout,
        validation=validation if on == "validation" else None,
        calibration_samples=len(data[0]),
        max_drop=limit,
        seed=seed,
    ).result
    base, last, judged = result.stages[0], result.stages[-1], result.judged
    return {
        "on": judged.on,
        "limit": limit,
        "seed": seed,
        "samples": judged.samples,
        "base": base.value,
        "macs": last.macs / base.macs,
        "judged": judged.found,
        "interval": judged.interval,
        "heldout": round(100 * (base.value - last.value), 6),
        "said": any(note.code == "more_lost_than_allowed" for note in result.notes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limits", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--train", type=int, default=597)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for seed in range(args.seeds):
        data = parts(seed, args.train)
        model = learned_by_heart(data[0], seed, args.device)
        for on in ("validation", "training samples"):
            for limit in args.limits:
                rows.append(row(model, data, on=on, limit=limit, seed=seed))
                print(rows[-1], flush=True)
    from coprune.pipeline.environment import versions

    named = {"train": args.train, "heldout": len(data[2]), "validation": len(data[1]), "seeds": args.seeds}
    made_with.write(args.out, {**named, "rows": rows, "versions": versions()})


if __name__ == "__main__":
    main()
