"""MobileNetV2 for small images (Sandler et al. 2018, arXiv 1801.04381).

The paper's seventeen inverted residual blocks. Its stem and its second stage halve the image, which
leaves nothing of 32×32 pixels after five halvings; as the pruning papers do on CIFAR, those two keep it.
"""

from __future__ import annotations

from torch import Tensor, nn

from coprune.models.arguments import require_positive

_STEM = 32

# Expansion, channels, blocks, stride of the first: table 2 of the paper but for the second's stride.
_PLAN = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

_LAST = 1280


def _layer(
    in_channels: int, out_channels: int, size: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution, batch norm, ReLU6."""
    return [
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    ]


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 projection without activation; added to its input if alike."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.added = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *(_layer(in_channels, inner, 1) if expansion > 1 else []),
            *_layer(inner, inner, 3, stride=stride, groups=inner),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.added else self.conv(x)


class SmallImageMobileNetV2(nn.Module):
    """MobileNetV2 for images of about 28×28 to 64×64.

    Args:
        in_channels: channels of the images.
        num_classes: length of the output.
        width: channels of the first convolution (32 in the paper); the others follow in proportion.
    """

    def __init__(self, *, in_channels: int = 3, num_classes: int = 10, width: int = _STEM) -> None:
        super().__init__()
        require_positive(in_channels=in_channels, num_classes=num_classes, width=width)

        def scaled(channels: int) -> int:
            return max(1, channels * width // _STEM)

        blocks: list[nn.Module] = []
        channels = width
        for expansion, out_channels, count, first_stride in _PLAN:
            for number in range(count):
                stride = first_stride if number == 0 else 1
                blocks.append(
                    InvertedResidual(channels, scaled(out_channels), stride=stride, expansion=expansion)
                )
                channels = scaled(out_channels)
        self.features = nn.Sequential(
            nn.Sequential(*_layer(in_channels, width, 3)),
            *blocks,
            nn.Sequential(*_layer(channels, scaled(_LAST), 1)),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(scaled(_LAST), num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]`` → logits ``[N, num_classes]``."""
        return self.classifier(self.pool(self.features(x)).flatten(1))
