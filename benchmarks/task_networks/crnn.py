"""A CRNN that reads drawn words: convolutions, an LSTM of both directions, CTC; the share read right.

As Shi and others (arXiv 1507.05717) build it, small.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from task_networks.frame import Case, descend, trained

HEIGHT, WIDTH, LONGEST = 24, 96, 6
ROWS = (
    "ehhvhhh uhhuhhu ehggghe uhhhhhu vgguggv vgguggg ehgnhhe hhhvhhh e44444e "
    "72222ic hikokih ggggggv hrllhhh hhpljhh ehhhhhe uhhuggg ehhhlid uhhukih "
    "fgge11u v444444 hhhhhhe hhhhha4 hhhllla hha4ahh hha4444 v1248gv"
)
"""A to Z, a digit of base 32 for each of seven rows of five pixels."""
FONT = ROWS.split()


class Crnn(nn.Module):
    """A column of features for every fourth column of pixels, read from left to right and back.

    Args:
        width: channels of the first convolution.
        hidden: units of the LSTM, a direction.
    """

    def __init__(self, width: int = 32, hidden: int = 96) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        pools = ((2, 2), (2, 2), (2, 1), (3, 1))
        widths = (1, width, 2 * width, 4 * width, 4 * width)
        for reads, makes, pool in zip(widths, widths[1:], pools, strict=False):
            convolution = nn.Conv2d(reads, makes, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(makes), nn.ReLU(), nn.MaxPool2d(pool)]
        self.features = nn.Sequential(*layers)
        self.reads = nn.LSTM(widths[-1], hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, len(FONT) + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, 24, 27]`` of images ``[N, 1, 24, 96]``; 0 is CTC's blank."""
        return self.head(self.reads(self.features(images).squeeze(2).transpose(1, 2))[0])


def words(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``[N, 1, 24, 96]`` of two to six letters in noise, and their numbers ``[N, 6]``, then 0."""
    drawn = random.Random(seed)
    font = [[[float(int(row, 32) >> 4 - x & 1) for x in range(5)] for row in letter] for letter in FONT]
    letters = torch.tensor(font)
    images, numbers = torch.zeros(count, 1, HEIGHT, WIDTH), torch.zeros(count, LONGEST, dtype=torch.long)
    for image, word in zip(images, numbers, strict=True):
        x = drawn.randint(1, 6)
        for place in range(drawn.randint(2, LONGEST)):
            word[place] = drawn.randint(1, len(FONT))
            size = drawn.randint(10, 18), drawn.randint(7, 12)
            y = drawn.randint(1, HEIGHT - 1 - size[0])
            image[0, y : y + size[0], x : x + size[1]] = F.interpolate(
                letters[word[place] - 1][None, None], size, mode="bilinear"
            )[0, 0] * drawn.uniform(0.5, 1.0)
            x += size[1] + drawn.randint(1, 3)
    generator = torch.Generator().manual_seed(seed)
    return images + 0.3 * torch.randn(images.shape, generator=generator), numbers


def ctc(logits: Tensor, numbers: Tensor) -> Tensor:
    """CTC's loss, the mean over letters."""
    spelled = (numbers > 0).sum(1)
    steps = torch.full_like(spelled, logits.shape[1])
    return F.ctc_loss(logits.log_softmax(2).transpose(0, 1), numbers, steps, spelled, zero_infinity=True)


def spelt(logits: Tensor) -> list[list[int]]:
    """The likeliest number of every column, each run of one once, without blanks."""
    return [
        [number for number in torch.unique_consecutive(row).tolist() if number] for row in logits.argmax(2)
    ]


def word_accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of words that are read right, in per cent."""
    right = [
        read == [number for number in word.tolist() if number]
        for images, numbers in batches
        for read, word in zip(spelt(model(images)), numbers, strict=True)
    ]
    return 100 * sum(right) / len(right)


def case(*, smoke: bool, folder: Path) -> Case:
    """Trained for minutes on words that are drawn."""
    count, epochs, width, hidden = (64, 1, 4, 8) if smoke else (6000, 8, 32, 96)
    torch.manual_seed(0)
    model = trained(
        Crnn(width, hidden),
        folder / f"crnn-{width}-{hidden}-{epochs}.safetensors",
        lambda net: descend(net, words(count, 0), ctc, epochs=epochs, lr=2e-3),
    )
    few = 16 if smoke else 500
    return Case(
        task="token-classification",
        network=f"CRNN, {width} channels, LSTM of {hidden}",
        made=f"four convolutions, an LSTM of both directions and CTC, trained for {epochs} epochs on "
        f"{count:,} drawn words of two to six letters in noise; calibrated on {few:,} others without their "
        f"letters, judged on {few:,} more: the share of words that are read right, in per cent.",
        model=model,
        calibration=DataLoader(words(few, 1)[0], batch_size=50),
        heldout=DataLoader(TensorDataset(*words(few, 2)), batch_size=50),
        budgets=(0.6,) if smoke else (0.6, 0.4),
        options={"units": ("inner", "coupled"), "metric": word_accuracy, "force": smoke},
    )
