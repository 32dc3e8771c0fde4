"""YOLO11n on canvases of garments whose boxes are known: mAP50-95 by the library's own validator.

``ultralytics`` is under AGPL-3.0: an extra, ``pip install coprune[detection]``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from coprune.data.fashion_mnist import SAMPLE_FILE
from coprune.models.yolo import yolo
from coprune.store import open_model
from task_networks.frame import Case, Judge

SIDE = 128
NAMES = ("shirt", "trouser", "sneaker", "bag")
_OF = {0: 0, 1: 1, 7: 2, 8: 3}
"""Classes of Fashion-MNIST that are drawn, by their number."""


def canvas(random: np.random.Generator, garments: np.ndarray, classes: np.ndarray) -> tuple[Any, list[str]]:
    """A noisy colour image with one to four garments of different sizes, and its boxes, a line each."""
    made = random.integers(0, 90, (SIDE, SIDE, 3)).astype(np.float32)
    made += random.integers(0, 60, (1, 1, 3))
    lines, taken = [], np.zeros((SIDE, SIDE), bool)
    for _ in range(int(random.integers(1, 5))):
        one = int(random.integers(len(garments)))
        size = int(random.integers(28, 60))
        y, x = (int(v) for v in random.integers(0, SIDE - size, 2))
        if taken[y : y + size, x : x + size].any():
            continue
        taken[y : y + size, x : x + size] = True
        small = torch.from_numpy(garments[one]).float()[None, None]
        large = nn.functional.interpolate(small, (size, size), mode="bilinear")[0, 0].numpy()
        inside = large > 20
        colour = random.uniform(0.5, 1.0, 3)
        region = made[y : y + size, x : x + size]
        region[inside] = large[inside, None] * colour
        down, right = np.nonzero(inside)
        top, bottom, left, end = (
            y + down.min(),
            y + down.max() + 1,
            x + right.min(),
            x + right.max() + 1,
        )
        box = ((left + end) / 2, (top + bottom) / 2, end - left, bottom - top)
        lines.append(f"{classes[one]} " + " ".join(f"{value / SIDE:.6f}" for value in box))
    return made.clip(0, 255).astype(np.uint8), lines


def written(folder: Path, counts: dict[str, int]) -> Path:
    """Pictures and boxes as the library reads them; the file that says where.

    Args:
        folder: to write into; what is there already is taken.
        counts: pictures of every part.
    """
    from PIL import Image

    said = folder / "garments.yaml"
    if said.is_file():
        return said
    with np.load(SAMPLE_FILE) as file:
        parts = {"train": ("x_train", "y_train"), "val": ("x_test", "y_test")}
        read = {part: (file[x].reshape(-1, 28, 28), file[y]) for part, (x, y) in parts.items()}
    for number, (part, count) in enumerate(counts.items()):
        garments, classes = read["val" if part == "val" else "train"]
        there = np.isin(classes, list(_OF))
        drawn = garments[there], np.array([_OF[int(c)] for c in classes[there]])
        random = np.random.default_rng(number)
        for kind in ("images", "labels"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture, lines = canvas(random, *drawn)
            Image.fromarray(picture).save(folder / "images" / part / f"{i:05d}.png")
            (folder / "labels" / part / f"{i:05d}.txt").write_text("\n".join(lines) + "\n")
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    said.write_text(f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return said


def images(folder: Path, part: str) -> Tensor:
    """Pictures as the network reads them, ``[N, 3, 128, 128]``."""
    from PIL import Image

    files = sorted((folder / "images" / part).glob("*.png"))
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files]))
    return pixels.permute(0, 3, 1, 2).float() / 255


def common(said: Path, folder: Path) -> dict[str, Any]:
    """What the library's training and validation are told alike."""
    quiet = {"plots": False, "verbose": False, "workers": 0, "device": "cpu"}
    return {"data": str(said), "imgsz": SIDE, "project": str(folder / "runs"), "exist_ok": True, **quiet}


def mean_ap(model: nn.Module, *, said: Path, folder: Path) -> float:
    """mAP50-95 by the library's validator, of the network put back into ``YOLO``."""
    return float(yolo(model).val(**common(said, folder), batch=32).box.map)


def base(said: Path, folder: Path, *, epochs: int) -> nn.Module:
    """YOLO11n from fresh weights; trained where it is not there yet."""
    kept = folder / "runs" / f"base-{epochs}" / "weights" / "best.pt"
    if not kept.is_file():
        fresh = open_model(
            "ultralytics:yolo11n.yaml",
            arguments={"num_classes": len(NAMES)},
            offered={"in_channels": 3},
        )
        yolo(fresh).train(
            **common(said, folder),
            epochs=epochs,
            batch=16,
            amp=False,
            name=f"base-{epochs}",
            seed=0,
            optimizer="AdamW",
            lr0=2e-3,
            warmup_epochs=0.5,
            mosaic=0.0,
        )
    return open_model(f"ultralytics:{kept}", arguments={}, offered={})


def case(*, smoke: bool, folder: Path) -> Case:
    """Trained for minutes on pictures that are drawn."""
    train, epochs, few = (16, 1, 16) if smoke else (1000, 8, 250)
    folder = folder / f"{train}-{epochs}"
    said = written(folder, {"train": train, "calibration": few, "val": few})
    model = base(said, folder, epochs=epochs)
    return Case(
        task="detection",
        network="YOLO11n",
        made=f"from fresh weights, trained by Ultralytics for {epochs} epochs on {train:,} drawn canvases of "
        f"{SIDE}×{SIDE} with one to four garments of Fashion-MNIST in four classes; calibrated on {few} "
        f"others without boxes; mAP50-95 by its own validator on {few} more.",
        model=model,
        calibration=DataLoader(images(folder, "calibration"), batch_size=32),
        heldout=DataLoader(images(folder, "val"), batch_size=32),
        budgets=(0.6,),
        options={"units": ("inner", "coupled"), "outputs": ("1.boxes", "1.scores")},
        seeds=1,
        judge=Judge("mAP50-95", partial(mean_ap, said=said, folder=folder)),
    )
