"""Networks over signals ``[N, C, L]`` and volumes ``[N, C, T, H, W]``, and an archive to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SHAPES = {"signals": (4, 40), "volumes": (2, 6, 7, 8)}


class Signals(nn.Module):
    """One-dimensional layers of every kind: dense, depthwise between dense ones, a residual sum."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(4, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv1d(16, 24, 1), nn.BatchNorm1d(24), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv1d(24, 24, 3, stride=2, groups=24), nn.BatchNorm1d(24), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv1d(24, 16, 1), nn.BatchNorm1d(16))
        self.skip = nn.Conv1d(16, 16, 3, stride=2)
        self.last = nn.Sequential(nn.Conv1d(16, 20, 3, dilation=2), nn.ReLU())
        self.fc = nn.Linear(20, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.narrow(self.deep(self.wide(x))) + self.skip(x))
        return self.fc(self.last(x).mean(2))


def volumes(num_classes: int = 3) -> nn.Module:
    """A plain chain over volumes."""
    return nn.Sequential(
        nn.Conv3d(2, 8, 3, padding=(0, 1, 1)),
        nn.BatchNorm3d(8),
        nn.ReLU(),
        nn.Conv3d(8, 12, (2, 3, 3), stride=(1, 2, 2)),
        nn.ReLU(),
        nn.Conv3d(12, 8, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, num_classes),
    )


NETWORKS = {"signals": Signals, "volumes": volumes}


def write_samples(path: Path, kind: str, *, classes: int = 3) -> Path:
    """Noise around a pattern of each class."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(classes, SHAPES[kind][0], *(1 for _ in SHAPES[kind][1:])))
    patterns = (level + 0.5 * rng.normal(size=(classes, *SHAPES[kind]))).astype(np.float32)
    parts = {}
    for part, count in (("train", 240), ("test", 90)):
        labels = np.arange(count) % classes
        noise = rng.normal(size=(count, *SHAPES[kind])).astype(np.float32)
        parts |= {f"x_{part}": patterns[labels] + noise, f"y_{part}": labels}
    channels = SHAPES[kind][0]
    np.savez(path, mean=np.full(channels, 0.1), std=np.full(channels, 1.5), **parts)
    return path
