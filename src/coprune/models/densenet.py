"""DenseNet-40 for small images (Huang et al. 2017, arXiv 1608.06993, section 3): the plain form.

Three dense blocks of twelve 3×3 layers, each of which reads all channels before it and adds ``width``
(the paper's growth rate k) of its own; no bottleneck, no compression between the blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coprune.models.arguments import require_positive

_BLOCKS = 3
_LAYERS = 12


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3×3 convolution; the result is put behind the input's channels."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.relu(self.bn(x)))], 1)


class SmallImageDenseNet(nn.Module):
    """DenseNet-40 for images of about 28×28 to 64×64.

    Args:
        in_channels: channels of the images.
        num_classes: length of the output.
        width: channels that a layer adds, k (12 in the paper, where the stem has 16: so in proportion).
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 10, width: int = 12) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, width=width)
        channels = 4 * width // 3
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)]
        for block in range(_BLOCKS):
            if block:
                layers += [
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(channels, channels, 1, bias=False),
                    nn.AvgPool2d(2),
                ]
            for _ in range(_LAYERS):
                layers.append(DenseLayer(channels, width))
                channels += width
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` → logits ``[N, num_classes]``."""
        return self.classifier(self.pool(self.features(x)).flatten(1))
