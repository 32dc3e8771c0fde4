"""Tiny networks with the structures of other people's networks, by kind; every one for a batch of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
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


def _slices(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    kept = x[:, : net.c]
    return net.head(torch.relu(net.read(torch.cat([kept, net.mid(x[:, net.c :])], 1))).mean((2, 3)))


def _dense(net: Any, x: Tensor) -> Tensor:
    seen = [net.stem(x)]
    for layer in net.layers:
        seen.append(layer(torch.cat(seen, 1)))
    return net.head(torch.cat(seen, 1).mean((2, 3)))


def _inception(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.read(torch.cat([branch(x) for branch in net.branches], 1)).mean((2, 3)))


def _c3(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.cv3(torch.cat([net.m(net.cv1(x)), net.cv2(x)], 1)))


def _beside(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.low(x).repeat_interleave(2, 2).repeat_interleave(2, 3) + net.high(x))


def _mixer(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x).flatten(2)
    return net.head(x + net.down(torch.relu(net.up(x)))).mean(1)


def _sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


@dataclass
class Pair:
    """What a network hands back."""

    mask: Tensor
    score: Tensor


def _two_heads(net: Any, x: Tensor) -> Pair:
    h = net.body(x)
    return Pair(net.mask(net.up(h)), net.score(net.mid(h).mean((2, 3))))


def _halves(net: Any, x: Tensor) -> Tensor:
    value, gate = net.proj(net.stem(x)).chunk(2, -1)
    return net.head(value * torch.sigmoid(gate))


def networks() -> dict[str, tuple[nn.Module, Any]]:
    """Name → network, and a sample ``[1, …]`` of what it reads."""
    image, signal = torch.randn(1, 3, 16, 16), torch.randn(1, 1, 32)
    volume, features = torch.randn(1, 1, 8, 8, 8), torch.randn(1, 6)
    return {
        "u-net": (UNet(), image),
        "u-net, interpolated": (UNet(transposed=False), image),
        "u-net, group norm": (UNet(norm=lambda width: nn.GroupNorm(4, width)), image),
        "autoencoder": (
            _sequence(
                *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()),
                *(nn.ConvTranspose2d(12, 8, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 3, 2, 1, 1)),
            ),
            image,
        ),
        "autoencoder of volumes": (
            _sequence(
                *(nn.Conv3d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv3d(6, 8, 3, 2, 1), nn.BatchNorm3d(8)),
                *(nn.ReLU(), nn.ConvTranspose3d(8, 6, 2, 2), nn.ReLU(), nn.ConvTranspose3d(6, 1, 2, 2)),
            ),
            volume,
        ),
        "autoencoder of signals": (
            _sequence(
                *(nn.Conv1d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv1d(8, 12, 4, 2, 1), nn.ReLU()),
                *(nn.ConvTranspose1d(12, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose1d(8, 1, 4, 2, 1)),
            ),
            signal,
        ),
        "decoder, depthwise": (
            _sequence(
                *(conv(3, 8), conv(8, 12, stride=2), nn.ConvTranspose2d(12, 12, 2, 2, groups=12)),
                *(nn.Conv2d(12, 10, 1), nn.ReLU(), nn.Conv2d(10, 3, 1)),
            ),
            image,
        ),
        "super-resolution, espcn": (
            _sequence(
                *(nn.Conv2d(3, 12, 5, padding=2), nn.Tanh(), nn.Conv2d(12, 10, 3, padding=1), nn.Tanh()),
                *(nn.Conv2d(10, 12, 3, padding=1), nn.PixelShuffle(2)),
            ),
            image,
        ),
        "super-resolution, edsr": (
            Net(
                lambda net, x: net.tail(net.up(net.stem(x) + net.body(net.stem(x)))),
                stem=nn.Conv2d(3, 8, 3, padding=1),
                body=_sequence(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1)),
                up=_sequence(nn.Conv2d(8, 32, 3, padding=1), nn.PixelShuffle(2)),
                tail=nn.Conv2d(8, 3, 3, padding=1),
            ),
            image,
        ),
        "encoder, pixel unshuffle": (
            _sequence(conv(3, 6), nn.PixelUnshuffle(2), conv(24, 10), nn.Conv2d(10, 4, 1)),
            image,
        ),
        "c2f, chunk": (_sequence(conv(3, 8), C2f(8, 16), conv(16, 12), nn.Conv2d(12, 4, 1)), image),
        "c2f, split": (
            _sequence(conv(3, 8), C2f(8, 16, told=True), conv(16, 12), nn.Conv2d(12, 4, 1)),
            image,
        ),
        "sppf": (_sequence(conv(3, 12), SPPF(12), nn.Conv2d(12, 4, 1)), image),
        "c3": (
            Net(
                _c3,
                stem=conv(3, 8),
                cv1=conv(8, 6, 1),
                cv2=conv(8, 6, 1),
                m=Bottleneck(6),
                cv3=conv(12, 10, 1),
                head=nn.Conv2d(10, 4, 1),
            ),
            image,
        ),
        "gated linear unit": (
            Net(_halves, stem=nn.Linear(6, 10), proj=nn.Linear(10, 24), head=nn.Linear(12, 3)),
            features,
        ),
        "glu of signals": (
            _sequence(nn.Conv1d(1, 16, 5), nn.GLU(1), nn.Conv1d(8, 20, 5), nn.GLU(1), nn.Conv1d(10, 3, 1)),
            signal,
        ),
        "crelu": (
            Net(
                lambda net, x: net.head(net.read(torch.relu(torch.cat([h := net.mid(net.stem(x)), -h], 1)))),
                stem=conv(3, 8),
                mid=nn.Conv2d(8, 10, 3, padding=1),
                read=conv(20, 12),
                head=nn.Conv2d(12, 4, 1),
            ),
            image,
        ),
        "maxout": (
            Net(
                lambda net, x: net.head((h := net.mid(net.stem(x))).view(len(h), -1, 2).max(2).values),
                stem=nn.Linear(6, 10),
                mid=nn.Linear(10, 24),
                head=nn.Linear(12, 3),
            ),
            features,
        ),
        "inception": (
            Net(
                _inception,
                stem=conv(3, 8),
                branches=nn.ModuleList(
                    _sequence(*branch)
                    for branch in (
                        [conv(8, 6, 1)],
                        [conv(8, 4, 1), conv(4, 8)],
                        [nn.AvgPool2d(3, 1, 1), conv(8, 4, 1)],
                    )
                ),
                read=conv(18, 12, 1),
                head=nn.Linear(12, 4),
            ),
            image,
        ),
        "densely connected": (
            Net(
                _dense,
                stem=conv(3, 8),
                layers=nn.ModuleList(conv(n, 6) for n in (8, 14)),
                head=nn.Linear(20, 4),
            ),
            image,
        ),
        "slices by an attribute": (
            Net(_slices, c=4, stem=conv(3, 12), mid=conv(8, 10), read=conv(14, 12), head=nn.Linear(12, 4)),
            image,
        ),
        "squeeze and excite": (
            _sequence(conv(3, 8), conv(8, 12), Excited(12), conv(12, 10), nn.Conv2d(10, 4, 1)),
            image,
        ),
        "shuffle": (Shuffle(), image),
        "crnn": (Crnn(), torch.randn(1, 1, 8, 32)),
        "crnn, steps first": (Crnn(batch_first=False), torch.randn(1, 1, 8, 32)),
        "convolutions, gru": (Crnn("GRU", num_layers=2), torch.randn(1, 1, 8, 32)),
        "convolutions, plain recurrence": (Crnn("RNN", bidirectional=False), torch.randn(1, 1, 8, 32)),
        "tagger": (Tagger(), torch.randint(2, 20, (1, 7))),
        "feature pyramid": (Fpn(), image),
        "two inputs": (
            Net(
                lambda net, x, y: net.head(torch.cat([net.body(x).mean((2, 3)), torch.relu(net.side(y))], 1)),
                body=_sequence(conv(3, 8), conv(8, 12)),
                side=nn.Linear(6, 10),
                head=nn.Linear(22, 4),
            ),
            (image, features),
        ),
        "named inputs, dict of outputs": (Denoiser(), {"sample": image, "timestep": torch.tensor([7])}),
        "two heads, dataclass": (
            Net(
                _two_heads,
                body=_sequence(conv(3, 8), conv(8, 12, stride=2)),
                up=nn.ConvTranspose2d(12, 6, 2, 2),
                mask=nn.Conv2d(6, 2, 1),
                mid=conv(12, 10),
                score=nn.Linear(10, 3),
            ),
            image,
        ),
        "wavenet": (WaveNet(), signal),
        "temporal convolutions": (
            _sequence(
                *(nn.Conv1d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 12, 3, padding=2, dilation=2)),
                *(nn.ReLU(), nn.Conv1d(12, 10, 3, padding=4, dilation=4), nn.ReLU(), nn.Conv1d(10, 3, 1)),
            ),
            signal,
        ),
        "repvgg": (RepVgg(), image),
        "view by an attribute": (
            Net(
                lambda net, x: net.head(torch.relu(net.body(x)).view(-1, net.features)),
                features=12,
                body=_sequence(conv(3, 8), nn.Conv2d(8, 12, 3, padding=1), nn.AdaptiveAvgPool2d(1)),
                head=nn.Linear(12, 4),
            ),
            image,
        ),
        "attention nobody knows": (SharedAttention(), torch.randn(1, 5, 6)),
        "mixer of places": (
            Net(
                _mixer,
                stem=nn.Conv2d(3, 8, 4, 4),
                up=nn.Linear(16, 24),
                down=nn.Linear(24, 16),
                head=nn.Linear(16, 5),
            ),
            image,
        ),
        "low resolution beside high": (
            Net(
                _beside,
                stem=conv(3, 8),
                low=_sequence(conv(8, 12), nn.Conv2d(12, 10, 3, 2, 1)),
                high=nn.Conv2d(8, 10, 1),
                head=nn.Conv2d(10, 4, 1),
            ),
            image,
        ),
        "perceptrons of residual pairs": (
            _sequence(
                *(m for n in pairwise((6, 12, 16, 10)) for m in (nn.Linear(*n), nn.GELU())), nn.Linear(10, 3)
            ),
            features,
        ),
    }
