"""VGG-16 with batch norm for small images (Simonyan & Zisserman 2015, arXiv 1409.1556).

The form that the pruning papers use on CIFAR: thirteen 3×3 convolutions, global pooling and one
linear layer. No skip paths, so every convolution but the last feeds exactly one other.
"""

from __future__ import annotations

from torch import Tensor, nn

from coprune.models.arguments import require_positive

_PLAN = (1, 1, "pool", 2, 2, "pool", 4, 4, 4, "pool", 8, 8, 8, "pool", 8, 8, 8)


class SmallImageVGG(nn.Module):
    """VGG-16-BN for images of about 28×28 to 64×64.

    Args:
        in_channels: channels of the images.
        num_classes: length of the output.
        width: channels of the first convolutions (64 in the paper).
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 10, width: int = 64) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, width=width)
        layers: list[nn.Module] = []
        channels = in_channels
        for step in _PLAN:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            layers += [
                nn.Conv2d(channels, step * width, 3, 1, 1, bias=False),
                nn.BatchNorm2d(step * width),
                nn.ReLU(inplace=True),
            ]
            channels = step * width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` → logits ``[N, num_classes]``."""
        return self.classifier(self.pool(self.features(x)).flatten(1))
