"""A network that is nobody's in particular, and loaders for it."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for layer in (self.a, self.b, self.c):
            x = torch.relu(layer(x))
        return self.fc(x.mean((2, 3)))


def loader(n: int = 90, *, seed: int = 0, shuffle: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, 10, 10, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=shuffle)


def labelled(change) -> list:
    """Batches with other labels."""
    return [(x, change(y)) for x, y in loader()]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(loader().dataset)
