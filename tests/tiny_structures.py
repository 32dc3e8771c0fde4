"""Tiny networks with the structures of other people's networks, by kind; every one for a batch of two."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from tiny_blocks import (
    SPPF,
    Bottleneck,
    C2f,
    Crnn,
    Denoiser,
    Excited,
    Fpn,
    LastState,
    Net,
    RepVgg,
    SharedAttention,
    Shuffle,
    Tagger,
    UNet,
    WaveNet,
    beside,
    c3,
    conv,
    dense,
    halves,
    inception,
    mixer,
    sequence,
    slices_of,
    two_heads,
)


def networks() -> dict[str, tuple[nn.Module, Any]]:
    """Name → network, and a sample ``[1, …]`` of what it reads."""
    image, signal = torch.randn(1, 3, 16, 16), torch.randn(1, 1, 32)
    volume, features = torch.randn(1, 1, 8, 8, 8), torch.randn(1, 6)
    return {
        "u-net": (UNet(), image),
        "u-net, interpolated": (UNet(transposed=False), image),
        "u-net, group norm": (UNet(norm=lambda width: nn.GroupNorm(4, width)), image),
        "autoencoder": (
            sequence(
                *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()),
                *(nn.ConvTranspose2d(12, 8, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 3, 2, 1, 1)),
            ),
            image,
        ),
        "autoencoder of volumes": (
            sequence(
                *(nn.Conv3d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv3d(6, 8, 3, 2, 1), nn.BatchNorm3d(8)),
                *(nn.ReLU(), nn.ConvTranspose3d(8, 6, 2, 2), nn.ReLU(), nn.ConvTranspose3d(6, 1, 2, 2)),
            ),
            volume,
        ),
        "autoencoder of signals": (
            sequence(
                *(nn.Conv1d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv1d(8, 12, 4, 2, 1), nn.ReLU()),
                *(nn.ConvTranspose1d(12, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose1d(8, 1, 4, 2, 1)),
            ),
            signal,
        ),
        "decoder, depthwise": (
            sequence(
                *(conv(3, 8), conv(8, 12, stride=2), nn.ConvTranspose2d(12, 12, 2, 2, groups=12)),
                *(nn.Conv2d(12, 10, 1), nn.ReLU(), nn.Conv2d(10, 3, 1)),
            ),
            image,
        ),
        "super-resolution, espcn": (
            sequence(
                *(nn.Conv2d(3, 12, 5, padding=2), nn.Tanh(), nn.Conv2d(12, 10, 3, padding=1), nn.Tanh()),
                *(nn.Conv2d(10, 12, 3, padding=1), nn.PixelShuffle(2)),
            ),
            image,
        ),
        "super-resolution, edsr": (
            Net(
                lambda net, x: net.tail(net.up(net.stem(x) + net.body(net.stem(x)))),
                stem=nn.Conv2d(3, 8, 3, padding=1),
                body=sequence(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1)),
                up=sequence(nn.Conv2d(8, 32, 3, padding=1), nn.PixelShuffle(2)),
                tail=nn.Conv2d(8, 3, 3, padding=1),
            ),
            image,
        ),
        "encoder, pixel unshuffle": (
            sequence(conv(3, 6), nn.PixelUnshuffle(2), conv(24, 10), nn.Conv2d(10, 4, 1)),
            image,
        ),
        "c2f, chunk": (sequence(conv(3, 8), C2f(8, 16), conv(16, 12), nn.Conv2d(12, 4, 1)), image),
        "c2f, split": (
            sequence(conv(3, 8), C2f(8, 16, told=True), conv(16, 12), nn.Conv2d(12, 4, 1)),
            image,
        ),
        "sppf": (sequence(conv(3, 12), SPPF(12), nn.Conv2d(12, 4, 1)), image),
        "c3": (
            Net(
                c3,
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
            Net(halves, stem=nn.Linear(6, 10), proj=nn.Linear(10, 24), head=nn.Linear(12, 3)),
            features,
        ),
        "glu of signals": (
            sequence(nn.Conv1d(1, 16, 5), nn.GLU(1), nn.Conv1d(8, 20, 5), nn.GLU(1), nn.Conv1d(10, 3, 1)),
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
                inception,
                stem=conv(3, 8),
                branches=nn.ModuleList(
                    sequence(*branch)
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
                dense,
                stem=conv(3, 8),
                layers=nn.ModuleList(conv(n, 6) for n in (8, 14)),
                head=nn.Linear(20, 4),
            ),
            image,
        ),
        "slices by an attribute": (
            Net(slices_of, c=4, stem=conv(3, 12), mid=conv(8, 10), read=conv(14, 12), head=nn.Linear(12, 4)),
            image,
        ),
        "squeeze and excite": (
            sequence(conv(3, 8), conv(8, 12), Excited(12), conv(12, 10), nn.Conv2d(10, 4, 1)),
            image,
        ),
        "shuffle": (Shuffle(), image),
        "crnn": (Crnn(), torch.randn(1, 1, 8, 32)),
        "crnn, steps first": (Crnn(batch_first=False), torch.randn(1, 1, 8, 32)),
        "convolutions, gru": (Crnn("GRU", num_layers=2), torch.randn(1, 1, 8, 32)),
        "convolutions, plain recurrence": (Crnn("RNN", bidirectional=False), torch.randn(1, 1, 8, 32)),
        "lstm, last state": (LastState(), torch.randn(1, 6, 5)),
        "gru, last states of both ways, words": (
            LastState("GRU", words=True, batch_first=True, bidirectional=True, num_layers=2),
            torch.randint(2, 20, (1, 7)),
        ),
        "tagger": (Tagger(), torch.randint(2, 20, (1, 7))),
        "feature pyramid": (Fpn(), image),
        "two inputs": (
            Net(
                lambda net, x, y: net.head(torch.cat([net.body(x).mean((2, 3)), torch.relu(net.side(y))], 1)),
                body=sequence(conv(3, 8), conv(8, 12)),
                side=nn.Linear(6, 10),
                head=nn.Linear(22, 4),
            ),
            (image, features),
        ),
        "named inputs, dict of outputs": (Denoiser(), {"sample": image, "timestep": torch.tensor([7])}),
        "two heads, dataclass": (
            Net(
                two_heads,
                body=sequence(conv(3, 8), conv(8, 12, stride=2)),
                up=nn.ConvTranspose2d(12, 6, 2, 2),
                mask=nn.Conv2d(6, 2, 1),
                mid=conv(12, 10),
                score=nn.Linear(10, 3),
            ),
            image,
        ),
        "wavenet": (WaveNet(), signal),
        "temporal convolutions": (
            sequence(
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
                body=sequence(conv(3, 8), nn.Conv2d(8, 12, 3, padding=1), nn.AdaptiveAvgPool2d(1)),
                head=nn.Linear(12, 4),
            ),
            image,
        ),
        "attention nobody knows": (SharedAttention(), torch.randn(1, 5, 6)),
        "mixer of places": (
            Net(
                mixer,
                stem=nn.Conv2d(3, 8, 4, 4),
                up=nn.Linear(16, 24),
                down=nn.Linear(24, 16),
                head=nn.Linear(16, 5),
            ),
            image,
        ),
        "low resolution beside high": (
            Net(
                beside,
                stem=conv(3, 8),
                low=sequence(conv(8, 12), nn.Conv2d(12, 10, 3, 2, 1)),
                high=nn.Conv2d(8, 10, 1),
                head=nn.Conv2d(10, 4, 1),
            ),
            image,
        ),
        "perceptrons of residual pairs": (
            sequence(
                *(m for n in pairwise((6, 12, 16, 10)) for m in (nn.Linear(*n), nn.GELU())), nn.Linear(10, 3)
            ),
            features,
        ),
    }
