"""What a user's own loaders and models hand out: token numbers, bytes, labels beside logits."""

import pytest
import torch
from torch import nn

import tiny

CLASSES = 3


class Tokens(nn.Module):
    """Convolutions over embedded token numbers ``[N, L]``."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.a = nn.Conv1d(8, 16, 3, padding=1)
        self.b = nn.Conv1d(16, 12, 3, padding=1)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.embed(x).transpose(1, 2)
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))).mean(2))


class Bytes(nn.Module):
    """Scales its bytes itself, and would not take anything else."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        if x.dtype != torch.uint8:
            raise TypeError(f"bytes are needed, not {x.dtype}")
        x = x.to(self.fc.weight.dtype) / 255 - 0.5
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


class Named(Bytes):
    """Hands back a plain dict."""

    def forward(self, x):
        return {"features": x, "logits": super().forward(x)}


def tokens():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % CLASSES
    return torch.randint(0, 4, (90, 9), generator=generator) + 4 * labels[:, None], labels


def pixels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % CLASSES
    images = torch.randint(0, 80, (90, 1, 8, 8), generator=generator) + 80 * labels.view(-1, 1, 1, 1)
    return images.to(torch.uint8), labels


MODELS = {Tokens: tokens, Bytes: pixels, Named: pixels}


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("method", ["complementary", "cosep", "taylor"])
def test_pruned_as_they_are(kind, method):
    torch.manual_seed(0)
    x, y = MODELS[kind]()
    batches = list(zip(x.split(30), y.split(30), strict=True))
    outcome = tiny.prune(kind(), train=batches, eval=batches, method=method, keep_macs=0.6, finetune_epochs=1)
    base, pruned = outcome.result.stage("base"), outcome.result.stage("pruned")
    assert pruned.macs <= 0.6 * base.macs
    assert {group.name for group in outcome.plan.groups} == {"b"}
    out = outcome.model(x[:5])
    assert (out["logits"] if isinstance(out, dict) else out).shape == (5, CLASSES)
