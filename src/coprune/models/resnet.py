"""Residual networks for small images (He et al. 2015, arXiv 1512.03385, section 4.2).

``6n + 2`` layers: a 3×3 stem, three stages of ``n`` basic blocks with ``width``, 2·``width`` and
4·``width`` channels, global average pooling, one linear layer. Where a stage halves the image the
skip path is a 1×1 convolution with batch norm (the paper's option B), so that every addition is of
two tensors that a dependency graph can follow.
"""

from __future__ import annotations

from torch import Tensor, nn

from coprune.models.arguments import require_positive


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a skip path. The channels between the two are *inner* channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + skip)


class SmallImageResNet(nn.Module):
    """``6·blocks + 2`` layers for images of about 28×28 to 64×64.

    Args:
        blocks: basic blocks a stage (3 for ResNet-20, 9 for ResNet-56, 18 for ResNet-110).
        in_channels: channels of the images.
        num_classes: length of the output.
        width: channels of the first stage.
    """

    def __init__(self, blocks: int, *, in_channels: int = 3, num_classes: int = 10, width: int = 16) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, width=width)
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(blocks, width, width, 1)
        self.layer2 = self._stage(blocks, width, 2 * width, 2)
        self.layer3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, stride)
        rest = [BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` → logits ``[N, num_classes]``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.pool(x).flatten(1))
