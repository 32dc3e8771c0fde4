"""Tiny networks, data and moments that many tests share. Everything is seeded."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import coprune
from coprune.budget.cost import CostModel
from coprune.data import ArraySource
from coprune.groups import ChannelGroup
from coprune.models.names import ModelSource
from coprune.models.registry import build
from coprune.models.small_images import SmallImageResNet
from coprune.plan import GroupDecision, Member
from coprune.statistics.moments import Moments

prune = functools.partial(coprune.prune, force=True)
"""For networks that have learned nothing, of which no accuracy means anything."""


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, batch-norm scales, shifts and running statistics; evaluation mode.

    A fresh batch norm is the identity: it would hide a channel that keeps another one's statistics.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def network(name: str, *, width: int = 4, classes: int = 3, seed: int = 0) -> nn.Module:
    """One of the project's networks for one-channel images, randomised."""
    source = ModelSource(f"coprune:{name}", {"in_channels": 1, "num_classes": classes, "width": width})
    return randomise(build(source), seed)


def resnet8(classes: int = 4) -> nn.Module:
    """The smallest residual network of the package's kind, untrained: a block a stage, three groups."""
    return SmallImageResNet(1, in_channels=1, num_classes=classes, width=4)


class Flattened(nn.Module):
    """conv → conv → pool → flatten → linear → linear for 1×12×12: a unit of conv2 spans 4 inputs of fc1."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.conv2 = nn.Conv2d(4, 6, 3, 2)
        self.bn = nn.BatchNorm2d(6)
        self.fc1 = nn.Linear(6 * 4, 10)
        self.fc2 = nn.Linear(10, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv2(torch.relu(self.conv1(x)))))
        return self.fc2(torch.relu(self.fc1(F.max_pool2d(x, 2).flatten(1))))


class Perceptron(nn.Module):
    """Three linear layers for images of 12×12."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.fc1 = nn.Linear(144, 9)
        self.fc2 = nn.Linear(9, 7)
        self.fc3 = nn.Linear(7, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.tanh(self.fc2(torch.relu(self.fc1(x.flatten(1))))))


class Depthwise(nn.Module):
    """A 1×1 convolution whose channels pass a depthwise one, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.expand = nn.Conv2d(4, 8, 1)
        self.spatial = nn.Conv2d(8, 8, 3, groups=8)
        self.project = nn.Conv2d(8, 5, 1)
        self.mix = nn.Conv2d(5, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.spatial(torch.relu(self.expand(self.stem(x)))))
        return self.fc(self.mix(torch.relu(self.project(x))).mean((2, 3)))


def source(
    n: int, *, classes: int = 3, size: int = 12, seed: int = 0, kind: type = ArraySource
) -> ArraySource:
    """Random uint8 images; every class occurs at least ``n // classes`` times, in random order."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    labels = (torch.arange(n) % classes)[torch.randperm(n, generator=generator)]
    # Make classes differ, so that class statistics do.
    images = (images // 2 + (labels * 40).view(-1, 1, 1, 1)).to(torch.uint8)
    return kind(images, labels)


class DoubleSource(ArraySource):
    """Hands out float64, so that a twin in NumPy agrees to 1e-9 and not only to float32."""

    def _scaled(self, images: Tensor) -> Tensor:
        return images.double() / 255


def moments(seed: int, *, classes: int = 4, units: int = 6, cells: int = 3) -> Moments:
    """Random moments with unequal counts; one class of one unit never varies."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.rand(classes, units, cells, generator=generator, dtype=torch.float64)

    count = torch.randint(2, 9, (classes,), generator=generator).double()
    m2 = draw() * 3
    m2[0, 0] = 0
    return Moments(count, draw() * 4 - 1, m2)


def group(size: int, name: str = "conv") -> ChannelGroup:
    """A group that belongs to no network."""
    members = (Member(layer=name, role="producer"), Member(layer=f"{name}_next", role="consumer"))
    return ChannelGroup(name, size, members, "inner")


@dataclass(frozen=True)
class NoCost(CostModel):
    """For methods, which do not look at costs."""

    layers: tuple = ()
    sizes: tuple = ()


def decision(of: ChannelGroup, kept: list[int]) -> GroupDecision:
    return GroupDecision(
        name=of.name, members=of.members, size=of.size, kept=tuple(sorted(kept)), reason="test"
    )


def random_decisions(groups: tuple[ChannelGroup, ...], seed: int) -> tuple[GroupDecision, ...]:
    """For each group a random set of at least one unit."""
    generator = torch.Generator().manual_seed(seed)
    decisions = []
    for one in groups:
        count = int(torch.randint(1, one.size + 1, (1,), generator=generator))
        decisions.append(decision(one, torch.randperm(one.size, generator=generator)[:count].tolist()))
    return tuple(decisions)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)
