"""A U-Net with transposed convolutions and skips that finds discs and squares in noise: mIoU."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from task_networks.frame import Case, descend, trained

SIDE = 32


class UNet(nn.Module):
    """Two levels down and up.

    Args:
        width: channels of the first level.
        classes: of a pixel.
    """

    def __init__(self, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            _block(1, width),
            _block(width, 2 * width),
            _block(2 * width, 4 * width),
        )
        self.up2, self.back2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), _block(4 * width, 2 * width)
        self.up1, self.back1 = nn.ConvTranspose2d(2 * width, width, 2, 2), _block(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        one = self.first(images)
        two = self.second(nn.functional.max_pool2d(one, 2))
        three = self.third(nn.functional.max_pool2d(two, 2))
        two = self.back2(torch.cat([self.up2(three), two], 1))
        return self.head(self.back1(torch.cat([self.up1(two), one], 1)))


def _block(reads: int, makes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (reads, makes):
        layers += [nn.Conv2d(channels, makes, 3, padding=1), nn.BatchNorm2d(makes), nn.ReLU()]
    return nn.Sequential(*layers)


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``[N, 1, 32, 32]`` of a disc and a square in noise, and the classes of their pixels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, SIDE, SIDE, generator=generator) * 0.6
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    down, right = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    middles = torch.randint(6, SIDE - 6, (count, 2, 2), generator=generator)
    sizes = torch.randint(3, 7, (count, 2), generator=generator)
    for shape in (0, 1):
        y, x = (middles[:, shape, axis].view(-1, 1, 1) for axis in (0, 1))
        size = sizes[:, shape].view(-1, 1, 1)
        if shape == 0:
            inside = (down - y) ** 2 + (right - x) ** 2 < size**2
        else:
            inside = ((down - y).abs() < size) & ((right - x).abs() < size)
        images[:, 0][inside] += 0.25 * (shape + 1)
        masks[inside] = shape + 1
    return images, masks


def case(*, smoke: bool, folder: Path) -> Case:
    """Trained on 2,000 drawn images."""
    count, epochs, width = (64, 1, 4) if smoke else (1200, 4, 16)
    torch.manual_seed(0)
    file = folder / f"unet-{width}-{epochs}.safetensors"
    model = trained(
        UNet(width),
        file,
        lambda net: descend(net, drawn(count, 0), nn.functional.cross_entropy, epochs=epochs, lr=2e-3),
    )
    few = 16 if smoke else 500
    return Case(
        task="segmentation",
        network=f"U-Net, {width} channels",
        made=f"two levels with transposed convolutions and skips, trained for {epochs} epochs on {count:,} "
        f"images of 32×32 with a disc and a square in noise; calibrated on {few} others without masks, "
        f"judged on {few} more.",
        model=model,
        calibration=DataLoader(drawn(few, 1)[0], batch_size=50),
        heldout=DataLoader(TensorDataset(*drawn(few, 2)), batch_size=50),
        budgets=(0.6,) if smoke else (0.6, 0.5),
        options={"units": ("inner", "coupled")},
    )
