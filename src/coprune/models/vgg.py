"""VGG-16 and VGG-19 with batch norm for small images (Simonyan & Zisserman 2015, arXiv 1409.1556).

The form that the pruning papers use on CIFAR: thirteen or sixteen 3×3 convolutions, global pooling and
one linear layer. No skip paths, so every convolution but the last feeds exactly one other.
"""

from __future__ import annotations

from torch import Tensor, nn

from coprune.models.arguments import require_positive

# Channels of a stage in multiples of the first's; between two stages the image is halved.
_STAGES = (1, 2, 4, 8, 8)


class SmallImageVGG(nn.Module):
    """VGG-16-BN or VGG-19-BN for images of about 28×28 to 64×64.

    Args:
        deep: convolutions of each of the last three stages (3 for VGG-16, 4 for VGG-19); the first two
            have two.
        in_channels: channels of the images.
        num_classes: length of the output.
        width: channels of the first convolutions (64 in the paper).
    """

    def __init__(self, deep: int, *, in_channels: int = 3, num_classes: int = 10, width: int = 64) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, width=width)
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, multiple in enumerate(_STAGES):
            if stage:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for _ in range(2 if stage < 2 else deep):
                layers += [
                    nn.Conv2d(channels, multiple * width, 3, 1, 1, bias=False),
                    nn.BatchNorm2d(multiple * width),
                    nn.ReLU(inplace=True),
                ]
                channels = multiple * width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` → logits ``[N, num_classes]``."""
        return self.classifier(self.pool(self.features(x)).flatten(1))
