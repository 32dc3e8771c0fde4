"""A super-resolution network that doubles the side of garments by pixel shuffle: PSNR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from coprune.data.fashion_mnist import SAMPLE_FILE
from task_networks.frame import Case, descend, trained


class Espcn(nn.Module):
    """Adds what is missing to the image that bilinear interpolation gives.

    Args:
        width: channels of the first convolution.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, scale_factor=2, mode="bilinear") + self.body(images)


def garments(part: str, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Images of half the side, ``[N, 1, 14, 14]``, and whole ones ``[N, 1, 28, 28]``."""
    with np.load(SAMPLE_FILE) as file:
        pixels = torch.from_numpy(file[f"x_{part}"][start : start + count])
    whole = pixels.view(-1, 1, 28, 28).float() / 255
    return F.avg_pool2d(whole, 2), whole


def case(*, smoke: bool, folder: Path) -> Case:
    """Trained on garments of Fashion-MNIST."""
    count, epochs, width = (64, 1, 8) if smoke else (7000, 8, 32)
    torch.manual_seed(0)
    model = trained(
        Espcn(width),
        folder / f"espcn-{width}-{epochs}.safetensors",
        lambda net: descend(net, garments("train", 0, count), F.mse_loss, epochs=epochs, lr=2e-3),
    )
    few = 16 if smoke else 1000
    return Case(
        task="reconstruction",
        network=f"ESPCN, {width} channels",
        made=f"four convolutions and a pixel shuffle on top of bilinear interpolation, trained for {epochs} "
        f"epochs to double the side of {count:,} garments of Fashion-MNIST from 14 to 28 pixels; calibrated "
        f"on {few} others of half the side, judged on {few} held-out ones.",
        model=model,
        calibration=DataLoader(garments("train", 7000, few)[0], batch_size=100),
        heldout=DataLoader(TensorDataset(*garments("test", 0, few)), batch_size=100),
        budgets=(0.6,) if smoke else (0.6, 0.5),
    )
