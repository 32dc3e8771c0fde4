"""Labelled photographs as loaders, split anew for every seed; :mod:`imagenet` says which."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.transforms import v2

FOLDER, SIZE, NORM = Path(), 224, 0.5
"""Of the images and ``labels.csv`` (file, label); pixels a side; mean and spread of a channel."""

SPLIT, CALIBRATION, HELDOUT = 0, 500, 200


@cache
def images() -> tuple[Tensor, Tensor]:
    """All of them, ``[N, 3, SIZE, SIZE]``, cut out of the middle as for evaluation, and their labels."""
    change = v2.Compose(
        [
            v2.Resize(round(SIZE / 0.875), interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(SIZE),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([NORM] * 3, [NORM] * 3),
        ]
    )
    rows = list(csv.DictReader((FOLDER / "labels.csv").read_text().splitlines()))
    found = [change(Image.open(FOLDER / row["file"]).convert("RGB")) for row in rows]
    return torch.stack(found), torch.tensor([int(row["label"]) for row in rows])


def loaders() -> dict[str, DataLoader]:
    """Those to calibrate on and others to judge."""
    data = TensorDataset(*images())
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(SPLIT)).tolist()
    parts = {"calibration": order[:CALIBRATION], "eval": order[CALIBRATION : CALIBRATION + HELDOUT]}
    return {name: DataLoader(Subset(data, part), batch_size=50) for name, part in parts.items()}
