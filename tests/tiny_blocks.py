"""Blocks and networks with the structures of other people's, by kind; see :mod:`tiny_structures`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(read: int, made: int, kernel: int = 3, **more: Any) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = nn.Conv2d(read, made, kernel, padding=kernel // 2, bias=False, **more), nn.BatchNorm2d(made)
    return nn.Sequential(*layers, nn.SiLU())


class Net(nn.Module):
    """A network made of a function and the layers that it uses."""

    def __init__(self, run: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = run

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.run(self, *inputs, **named)


class UNet(nn.Module):
    """Down twice and up twice, with skips; up by transposed convolutions or by interpolation."""

    def __init__(self, *, transposed: bool = True, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()

        def double(read: int, made: int) -> nn.Sequential:
            first, second = nn.Conv2d(read, made, 3, padding=1), nn.Conv2d(made, made, 3, padding=1)
            return nn.Sequential(first, norm(made), nn.ReLU(), second, norm(made), nn.ReLU())

        self.down = nn.ModuleList([double(3, 8), double(8, 16), double(16, 24)])
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(read, made, 2, 2)
            if transposed
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(read, made, 1))
            for read, made in ((24, 16), (16, 8))
        )
        self.joins = nn.ModuleList([double(32, 16), double(16, 8)])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for at, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if at else x)
            skips.append(x)
        for up, block, skip in zip(self.ups, self.joins, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, up(x)], 1))
        return self.head(x)


class Bottleneck(nn.Module):
    """Two convolutions beside their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class C2f(nn.Module):
    """Halves, of which one passes blocks; all that comes of it side by side."""

    def __init__(self, read: int, made: int, *, told: bool = False) -> None:
        super().__init__()
        self.c, self.told = made // 2, told
        self.cv1, self.cv2 = conv(read, 2 * self.c, 1), conv(4 * self.c, made, 1)
        self.m = nn.ModuleList(Bottleneck(self.c) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        parts = list(y.split((self.c, self.c), 1) if self.told else y.chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Pools of pools side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(width, width // 2, 1), conv(width * 2, width, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.cv1(x)]
        found.extend(self.pool(found[-1]) for _ in range(3))
        return self.cv2(torch.cat(found, 1))


class Excited(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class TimedBlock(nn.Module):
    """A residual block with group norms and a time step, as in diffusion."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, width), nn.GroupNorm(4, width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.time = nn.Linear(8, width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(h)))


class Denoiser(nn.Module):
    """Named inputs and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.embed = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(4, 8)
        self.block, self.head = TimedBlock(16), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        angle = timestep[:, None].to(sample.dtype) / 10.0 ** torch.arange(2, dtype=sample.dtype)
        time = self.embed(torch.cat([angle.sin(), angle.cos()], 1))
        return {"sample": self.head(self.block(self.stem(sample), time))}


class WaveNet(nn.Module):
    """Gated layers of growing dilation; each adds to a stream and to a sum of skips."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 8, 1)
        self.gated = nn.ModuleList(nn.Conv1d(8, 24, 3, padding=d, dilation=d) for d in (1, 2))
        self.stay, self.skip = (nn.ModuleList(nn.Conv1d(12, 8, 1) for _ in range(2)) for _ in range(2))
        self.mid, self.head = nn.Conv1d(8, 10, 1), nn.Conv1d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.stem(x), 0
        for gated, stay, skip in zip(self.gated, self.stay, self.skip, strict=True):
            value, gate = gated(x).chunk(2, 1)
            h = torch.tanh(value) * torch.sigmoid(gate)
            x, total = x + stay(h), total + skip(h)
        return self.head(torch.relu(self.mid(torch.relu(total))))


class Crnn(nn.Module):
    """Convolutions, then an LSTM along the width, then letters."""

    def __init__(self, kind: str = "LSTM", **more: Any) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv(1, 8), nn.MaxPool2d(2), conv(8, 12), nn.AdaptiveAvgPool2d((1, None)))
        more = {"bidirectional": True, "batch_first": True, **more}
        self.rnn = getattr(nn, kind)(12, 10, **more)
        self.first = self.rnn.batch_first
        self.mid = nn.Linear(10 * (2 if self.rnn.bidirectional else 1), 14)
        self.head = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.convs(x).squeeze(2)
        steps = steps.permute(0, 2, 1) if self.first else steps.permute(2, 0, 1)
        out = self.head(torch.relu(self.mid(self.rnn(steps)[0])))
        return out if self.first else out.transpose(0, 1)


class Tagger(nn.Module):
    """Words, a linear layer, an LSTM, tags."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up = nn.Embedding(20, 8), nn.Linear(8, 12)
        self.rnn, self.head = nn.LSTM(12, 9, num_layers=2, batch_first=True), nn.Linear(9, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(torch.relu(self.up(self.words(ids))))[0])


class LastState(nn.Module):
    """What a recurrent layer has in the end, which it hands back beside all steps, or as one of these.

    Args:
        kind: of layer.
        words: whether it reads words.
        stated: whether the end is taken from what is handed back beside.
        more: of the layer.
    """

    def __init__(self, kind: str = "LSTM", *, words: bool = False, stated: bool = True, **more: Any) -> None:
        super().__init__()
        self.stated, self.first = stated, nn.Embedding(20, 8) if words else nn.Linear(5, 8)
        self.up = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 9))
        self.rnn = getattr(nn, kind)(9, 12, **more)
        ends = 2 if self.rnn.bidirectional else 1
        self.mid, self.head = nn.Linear(12 * ends, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        rnn, read = self.rnn, torch.relu(self.up(self.first(x)))
        steps, state = rnn(read if rnn.batch_first else read.transpose(0, 1))
        hidden = state[0] if isinstance(state, tuple) else state
        steps = steps.transpose(0, 1) if rnn.batch_first else steps
        ends = [steps[-1, :, :12], *([steps[0, :, 12:]] if rnn.bidirectional else [])]
        ends = list(hidden[-len(ends) :]) if self.stated else ends
        return self.head(torch.relu(self.mid(torch.cat(ends, 1))))


class Shuffle(nn.Module):
    """Half of the channels pass a branch, and then all are shuffled (ShuffleNet V2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.branch = nn.Sequential(conv(8, 12, 1), conv(12, 12, 3, groups=12), conv(12, 8, 1))
        self.read, self.head = conv(16, 12, 1), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.stem(x).chunk(2, 1)
        x = torch.cat([one, self.branch(other)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.read(x).mean((2, 3)))


class Fpn(nn.Module):
    """Three levels; each adds what comes from above; a list of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 8), conv(8, 12, stride=2), conv(12, 16, stride=2)])
        self.laterals = nn.ModuleList(nn.Conv2d(n, 10, 1) for n in (8, 12, 16))
        self.smooth = nn.ModuleList(nn.Conv2d(10, 10, 3, padding=1) for _ in range(3))
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        top, made = None, []
        for lateral, smooth, level in zip(self.laterals[::-1], self.smooth, maps[::-1], strict=True):
            top = lateral(level) + (0 if top is None else F.interpolate(top, scale_factor=2))
            made.append(self.head(smooth(top)))
        return made


class RepVgg(nn.Module):
    """Three branches of one width, added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.wide, self.narrow = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(8, 12, 1)
        self.next, self.skip = nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.wide(x) + self.narrow(x))
        return self.head(torch.relu(self.next(x) + self.skip(x)).mean((2, 3)))


class SharedAttention(nn.Module):
    """Attention of a family that nobody knows, its heads counted by an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.stem, self.qkv = nn.Linear(6, 10), nn.Linear(10, 48)
        self.out, self.head = nn.Linear(16, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        h = self.stem(x)
        q, k, v = self.qkv(h).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(h + self.out(seen.transpose(1, 2).reshape(n, t, -1)))


def slices_of(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    kept = x[:, : net.c]
    return net.head(torch.relu(net.read(torch.cat([kept, net.mid(x[:, net.c :])], 1))).mean((2, 3)))


def dense(net: Any, x: Tensor) -> Tensor:
    seen = [net.stem(x)]
    for layer in net.layers:
        seen.append(layer(torch.cat(seen, 1)))
    return net.head(torch.cat(seen, 1).mean((2, 3)))


def inception(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.read(torch.cat([branch(x) for branch in net.branches], 1)).mean((2, 3)))


def c3(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.cv3(torch.cat([net.m(net.cv1(x)), net.cv2(x)], 1)))


def beside(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.low(x).repeat_interleave(2, 2).repeat_interleave(2, 3) + net.high(x))


def mixer(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2)
    return net.head(x + net.down(torch.relu(net.up(x)))).mean(1)


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


@dataclass
class Pair:
    """What a network hands back."""

    mask: Tensor
    score: Tensor


def two_heads(net: Any, x: Tensor) -> Pair:
    h = net.body(x)
    return Pair(net.mask(net.up(h)), net.score(net.mid(h).mean((2, 3))))


def halves(net: Any, x: Tensor) -> Tensor:
    value, gate = net.proj(net.stem(x)).chunk(2, -1)
    return net.head(value * torch.sigmoid(gate))
