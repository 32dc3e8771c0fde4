"""The project's own networks for images of about 28×28 to 64×64.

All end in global average pooling and one linear layer; every addition and concatenation is of tensors that a
dependency graph can follow. Each takes

* ``in_channels``: channels of the images ``[N, in_channels, H, W]``;
* ``num_classes``: length ``C`` of the logits ``[N, C]``;
* ``width``: how many channels its layers have, in units that the class states.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn


def _require_positive(**values: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: names the argument.
    """
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")


def _initialise(model: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    """He initialisation of all convolutions (He et al. 2015, arXiv 1502.01852)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


def _convolution(
    in_channels: int, out_channels: int, size: int = 3, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution that keeps the image's size but for the stride, and batch norm."""
    return [
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a skip path. The channels between the two are *inner* channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _convolution(in_channels, out_channels, stride=stride)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = _convolution(out_channels, out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(*_convolution(in_channels, out_channels, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + skip)


class SmallImageResNet(nn.Module):
    """Residual network of ``6·blocks + 2`` layers (He et al. 2015, arXiv 1512.03385, section 4.2).

    A 3×3 stem, three stages with ``width``, 2·``width`` and 4·``width`` channels. Where a stage halves the
    image the skip path is a 1×1 convolution with batch norm (the paper's option B).

    Args:
        blocks: basic blocks a stage (3 for ResNet-20, 9 for ResNet-56, 18 for ResNet-110).
        in_channels, num_classes: see the module.
        width: channels of the first stage.
    """

    def __init__(self, blocks: int, *, in_channels: int = 3, num_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        _require_positive(in_channels=in_channels, num_classes=num_classes, width=width)
        self.conv1, self.bn1 = _convolution(in_channels, width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(blocks, width, width, 1)
        self.layer2 = self._stage(blocks, width, 2 * width, 2)
        self.layer3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        _initialise(self, "fan_out")

    @staticmethod
    def _stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, stride)
        return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` → logits ``[N, num_classes]``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.pool(x).flatten(1))


class _Stack(nn.Module):
    """Layers one after another (``features``), pooling, ``classifier``."""

    fan: Literal["fan_in", "fan_out"] = "fan_out"

    def __init__(self, layers: Iterable[nn.Module], channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        _initialise(self, self.fan)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` → logits ``[N, num_classes]``."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


class SmallImageVGG(_Stack):
    """VGG-16 and VGG-19 with batch norm (Simonyan & Zisserman 2015, arXiv 1409.1556), as papers use on CIFAR.

    Thirteen or sixteen 3×3 convolutions in five stages, between which the image is halved. No skip paths, so
    every convolution but the last feeds exactly one other.

    Args:
        deep: convolutions of each of the last three stages (3 for VGG-16, 4 for VGG-19); the first two
            have two.
        in_channels, num_classes: see the module.
        width: channels of the first convolutions (64 in the paper).
    """

    def __init__(self, deep: int, *, in_channels: int = 3, num_classes: int = 10, width: int = 64) -> None:
        _require_positive(in_channels=in_channels, num_classes=num_classes, width=width)
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, multiple in enumerate((1, 2, 4, 8, 8)):
            if stage:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for _ in range(2 if stage < 2 else deep):
                layers += [*_convolution(channels, multiple * width), nn.ReLU(inplace=True)]
                channels = multiple * width
        super().__init__(layers, channels, num_classes)


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 projection without activation; added to its input if alike."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.added = stride == 1 and in_channels == out_channels
        expand = [*_convolution(in_channels, inner, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [*_convolution(inner, inner, stride=stride, groups=inner), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*expand, *depthwise, *_convolution(inner, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.added else self.conv(x)


# Expansion, channels, blocks, stride of the first: table 2 of the paper but for the second's stride.
_MOBILENET = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class SmallImageMobileNetV2(_Stack):
    """MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381): seventeen inverted residual blocks.

    Its stem and its second stage halve the image, which leaves nothing of 32×32 pixels after five halvings;
    as the pruning papers do on CIFAR, those two keep it.

    Args:
        in_channels, num_classes: see the module.
        width: channels of the first convolution (32 in the paper); the others follow in proportion.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 10, width: int = 32) -> None:
        _require_positive(in_channels=in_channels, num_classes=num_classes, width=width)

        def scaled(channels: int) -> int:
            return max(1, channels * width // 32)

        layers: list[nn.Module] = [nn.Sequential(*_convolution(in_channels, width), nn.ReLU6(inplace=True))]
        channels = width
        for expansion, out_channels, count, first_stride in _MOBILENET:
            for stride in (first_stride, *[1] * (count - 1)):
                out = scaled(out_channels)
                layers.append(InvertedResidual(channels, out, stride=stride, expansion=expansion))
                channels = out
        last = scaled(1280)
        layers.append(nn.Sequential(*_convolution(channels, last, 1), nn.ReLU6(inplace=True)))
        super().__init__(layers, last, num_classes)


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3×3 convolution; the result is put behind the input's channels."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.relu(self.bn(x)))], 1)


class SmallImageDenseNet(_Stack):
    """DenseNet-40 (Huang et al. 2017, arXiv 1608.06993, section 3): the plain form.

    Three dense blocks of twelve 3×3 layers, each of which reads all channels before it and adds ``width``
    (the paper's growth rate k) of its own; no bottleneck, no compression between the blocks.

    Args:
        in_channels, num_classes: see the module.
        width: channels that a layer adds, k (12 in the paper, where the stem has 16: so in proportion).
    """

    fan = "fan_in"

    def __init__(self, *, in_channels: int = 3, num_classes: int = 10, width: int = 12) -> None:
        _require_positive(in_channels=in_channels, num_classes=num_classes, width=width)
        channels = 4 * width // 3
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)]
        for block in range(3):
            if block:
                layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                layers += [nn.Conv2d(channels, channels, 1, bias=False), nn.AvgPool2d(2)]
            for _ in range(12):
                layers.append(DenseLayer(channels, width))
                channels += width
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        super().__init__(layers, channels, num_classes)
