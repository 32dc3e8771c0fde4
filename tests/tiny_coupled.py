"""Tiny networks whose channels are coupled, one way each, for images of one channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tiny


class Stream(nn.Module):
    """stem + two blocks on one stream, as in MobileNetV2: sums, batch norms, depthwise in between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(6, 8, 1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU6(),
                nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU6(),
                nn.Conv2d(8, 6, 1, bias=False),
                nn.BatchNorm2d(6),
            )
            for _ in range(2)
        )
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = x + block(x)
        return self.fc(x.mean((2, 3)))


class Plain(nn.Module):
    """A layer reads and writes one stream, so that its cost is quadratic in the stream's width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.same = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.fc(torch.relu(x + self.same(x)).mean((2, 3)))


class Dense(nn.Module):
    """Concatenation after concatenation with a batch norm behind each, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (4, 7, 10))
        self.convs = nn.ModuleList(nn.Conv2d(n, 3, 3, padding=1, bias=False) for n in (4, 7))
        self.fc = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=False):
            seen.append(conv(torch.relu(norm(torch.cat(seen, 1)))))
        return self.fc(torch.relu(self.norms[2](torch.cat(seen, 1))).mean((2, 3)))


class WithImage(nn.Module):
    """Features beside the image itself: a part of the concatenation that no layer made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 5, 3, padding=1)
        self.right = nn.Conv2d(4, 5, 3, padding=1)
        self.read = nn.Conv2d(6, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        h = torch.relu(self.left(h) + self.right(h))
        return self.fc(torch.relu(self.read(torch.cat([h, x], 1))).mean((2, 3)))


class Flat(nn.Module):
    """A sum, flattened: a linear layer reads all pixels of a unit."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2)
        self.left = nn.Conv2d(4, 5, 3, stride=2)
        self.right = nn.Conv2d(4, 5, 3, stride=2)
        self.fc1 = nn.Linear(5 * 4, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        both = torch.relu(self.left(x) + self.right(x))
        return self.fc2(torch.relu(self.fc1(both.flatten(1))))


class FlatConcatenation(nn.Module):
    """Two parts side by side, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2)
        self.left = nn.Conv2d(4, 5, 3, stride=2)
        self.right = nn.Conv2d(4, 3, 3, stride=2)
        self.fc1 = nn.Linear(8 * 4, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        both = torch.relu(torch.cat([self.left(x), self.right(x)], 1))
        return self.fc2(torch.relu(self.fc1(both.flatten(1))))


class Grouped(nn.Module):
    """A bottleneck with a grouped convolution, as in ResNeXt; squeeze-and-excite, as in RegNet."""

    def __init__(self, groups: int = 4, width: int = 8, multiplier: int = 1) -> None:
        super().__init__()
        made = width * multiplier
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.a = nn.Conv2d(4, width, 1, bias=False)
        self.bn_a = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, made, 3, padding=1, groups=groups)
        self.bn_b = nn.BatchNorm2d(made)
        self.squeeze = nn.Conv2d(made, 3, 1)
        self.excite = nn.Conv2d(3, made, 1)
        self.c = nn.Conv2d(made, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        h = torch.relu(self.bn_b(self.b(torch.relu(self.bn_a(self.a(x))))))
        h = h * torch.sigmoid(self.excite(torch.relu(self.squeeze(h.mean((2, 3), keepdim=True)))))
        return self.fc(torch.relu(x + self.c(h)).mean((2, 3)))


class Normed(nn.Module):
    """Layer norm over the channels of a stream, and a layer scale, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 2, 2)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6)
        self.up = nn.Linear(6, 9)
        self.down = nn.Linear(9, 6)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        h = self.down(torch.nn.functional.gelu(self.up(h))).permute(0, 3, 1, 2)
        return self.fc((x + self.scale * h).mean((2, 3)))


class LayerNorm2d(nn.LayerNorm):
    """Over the second axis, as libraries have it for maps; its weights look like any layer norm's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NormedMaps(nn.Module):
    """Layer norm over the channels of maps, as wide as they are high and deep: sizes do not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 2, 2)
        self.norm = LayerNorm2d(6)
        self.mix = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x + torch.relu(self.mix(self.norm(x)))).mean((2, 3)))


class RmsNorm2d(nn.Module):
    """A library's own norm: PyTorch's names, no class of PyTorch's, and an activation of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalized_shape = (channels,)
        self.weight = nn.Parameter(torch.ones(channels))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
        return self.act(x * self.weight.reshape(1, -1, 1, 1))


class GlobalResponseNorm(nn.Module):
    """Every channel by its strength among all, as in ConvNeXt V2."""

    channel_dim = -1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        strength = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + self.bias + self.weight * x * strength / (strength.mean(-1, keepdim=True) + 1e-6)


class OwnNorms(nn.Module):
    """Norms over channels that are no layers of PyTorch, in a chain and in a block of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 2, 2)
        self.made = nn.Conv2d(4, 6, 1)
        self.rms = RmsNorm2d(6)  # of maps 6 high and 6 wide
        self.read = nn.Conv2d(6, 4, 1)
        self.up = nn.Linear(4, 8)
        self.response = GlobalResponseNorm(8)
        self.down = nn.Linear(8, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(self.rms(self.made(torch.relu(self.stem(x))))).permute(0, 2, 3, 1)
        x = x + self.down(self.response(torch.nn.functional.gelu(self.up(x))))
        return self.fc(x.mean((1, 2)))


class Paths(nn.Module):
    """Two paths in a stack, weighed by a softmax between them, as in selective kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.paths = nn.ModuleList(nn.Conv2d(4, 6, 3, padding=d, dilation=d) for d in (1, 2))
        self.reduce, self.select = nn.Conv2d(6, 5, 1), nn.Conv2d(5, 12, 1)
        self.read = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        stack = torch.stack([path(x) for path in self.paths], 1)
        weight = self.select(torch.relu(self.reduce(stack.sum(1).mean((2, 3), keepdim=True))))
        n, channels, height, width = weight.shape
        weight = weight.view(n, 2, channels // 2, height, width).softmax(1)
        return self.fc(torch.relu(self.read((stack * weight).sum(1))).mean((2, 3)))


class GroupNormed(nn.Module):
    """A group norm: its groups are blocks of channels that go together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.made = nn.Conv2d(4, 8, 3)
        self.norm = nn.GroupNorm(4, 8)
        self.read = nn.Conv2d(8, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.made(torch.relu(self.stem(x)))))
        return self.fc(self.read(h).mean((2, 3)))


class Shuffled(nn.Module):
    """A channel shuffle between two pointwise layers: its groups stay as large as one another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.one = nn.Conv2d(4, 6, 1)
        self.two = nn.Conv2d(4, 6, 1)
        self.read = nn.Conv2d(12, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        h = torch.cat([self.one(x), self.two(x)], 1)
        n, c, height, width = h.shape
        h = h.view(n, 2, c // 2, height, width).transpose(1, 2).contiguous().view(n, c, height, width)
        return self.fc(torch.relu(self.read(torch.relu(h))).mean((2, 3)))


class Strongest(nn.Module):
    """Every channel of a sum is divided by all before it, by a function that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.one = nn.Conv2d(4, 6, 1)
        self.two = nn.Conv2d(4, 6, 1)
        self.read = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        h = torch.relu(self.one(x) + self.two(x))
        h = h / (1 + h.logcumsumexp(1))
        return self.fc(torch.relu(self.read(h)).mean((2, 3)))


class Reversed(nn.Module):
    """The channels of a chain come out in reverse order."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.made = nn.Conv2d(4, 6, 1)
        self.read = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.made(torch.relu(self.stem(x)))).flip(1)
        return self.fc(torch.relu(self.read(h)).mean((2, 3)))


class Halved(nn.Module):
    """A sum that is split in two halves wherever its middle is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.one = nn.Conv2d(4, 8, 1)
        self.two = nn.Conv2d(4, 8, 1)
        self.left = nn.Conv2d(4, 4, 1)
        self.right = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        left, right = torch.relu(self.one(x) + self.two(x)).chunk(2, 1)
        return self.fc(torch.relu(self.left(left) * self.right(right)).mean((2, 3)))


def networks() -> dict[str, nn.Module]:
    """Networks of which every coupled group can be cut."""
    made: dict[str, nn.Module] = {
        "resnet20": tiny.network("resnet20"),
        "stream": Stream(),
        "plain": Plain(),
        "dense": Dense(),
        "with_image": WithImage(),
        "flat": Flat(),
        "grouped": Grouped(),
        "multiplied": Grouped(groups=8, multiplier=2),
        "normed": Normed(),
        "normed_maps": NormedMaps(),
        "own_norms": OwnNorms(),
        "group_normed": GroupNormed(),
        "paths": Paths(),
        "shuffled": Shuffled(),
        "halved": Halved(),
        "flat_concatenation": FlatConcatenation(),
        "reversed": Reversed(),
    }
    return {name: tiny.randomise(net) for name, net in made.items()}
