"""Channels that are followed through one pass: what is between known layers, and what a model hands back."""

import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import tiny
import tiny_coupled
from coprune.groups import channel_indices, find_units
from coprune.groups.labels import NONE, Ties, blank, compact
from coprune.groups.trace import follow_channels
from coprune.surgery import sound

IMAGE = torch.zeros(1, 1, 12, 12)


class Attention(nn.Module):
    """Keys times queries between grouped channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.qkv = nn.Conv2d(8, 24, 1)
        self.out = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        n, _, height, width = x.shape
        q, k, v = self.qkv(x).view(n, 2, 12, height * width).split(4, 2)
        seen = (q.transpose(2, 3) @ k).softmax(-1)
        return self.fc((x + self.out((v @ seen).reshape(n, 8, height, width))).mean((2, 3)))


def test_channels_that_are_multiplied_with_one_another_go_together():
    units = find_units(tiny.randomise(Attention()), IMAGE, coupled=True)
    assert "qkv" in {s.layer for s in units.skipped}


@pytest.mark.parametrize("name", ["efficientvit_m0", "xcit_nano_12_p16_224", "shvit_s1"])
def test_networks_with_attention_between_convolutions_are_followed_in_seconds(name):
    timm = pytest.importorskip("timm")
    net = timm.create_model(name, pretrained=False).eval()
    size = net.default_cfg["input_size"][-1]
    started = time.monotonic()
    assert follow_channels(net, torch.zeros(1, 3, size, size)).edges
    assert time.monotonic() - started < 30


def test_frozen_layers_stay_frozen():
    net = tiny.network("resnet20")
    net.requires_grad_(False)
    assert follow_channels(net, torch.zeros(1, 1, 28, 28)).edges
    assert not any(p.requires_grad for p in net.parameters())


def test_values_that_meet_go_together_but_for_one_value_for_all():
    ties = Ties()
    maps = torch.arange(3.0, dtype=torch.float64).view(1, 3, 1).expand(1, 3, 4)
    gate = torch.arange(10.0, 13.0, dtype=torch.float64).view(1, 3, 1)
    assert torch.equal(ties.meet([maps, gate], (1, 3, 4)), maps)
    ((pairs, gated),) = ties.pairs
    assert pairs.tolist() == [[0, 10], [1, 11], [2, 12]]
    assert not gated
    ties = Ties()
    assert torch.equal(ties.meet([maps, blank((1, 1, 4), 20.0)], (1, 3, 4)), maps)
    assert not ties.pairs
    # A constant has no channels; values of a width that cannot change fix those that they meet.
    assert torch.equal(ties.meet([blank((1, 3, 4), NONE), maps], (1, 3, 4)), maps)
    assert not ties.pairs
    ties.meet([maps, blank((1, 3, 4), -2.0)], (1, 3, 4))
    assert ties.fixed[0].tolist() == [[0, -2], [1, -2], [2, -2]]


def test_what_is_computed_over_an_axis_goes_together():
    ties = Ties()
    labels = torch.arange(4.0, dtype=torch.float64).view(2, 2, 1).expand(2, 2, 3)
    found = ties.along(labels, [1])
    assert found.shape == (2, 1, 3)
    assert sorted(ties.pairs[0][0].tolist()) == [[1, 0], [3, 2]]
    assert compact(torch.zeros(2, 3, dtype=torch.float64)).stride() == (0, 0)


def test_channels_of_stacked_paths_go_with_their_weights_in_every_path():
    net = tiny_coupled.networks()["paths"]
    (group,) = [g for g in find_units(net, IMAGE, coupled=True).groups if g.name == "paths.0"]
    of = {(m.layer, m.role): m for m in group.members}
    assert group.size == 6
    assert {layer for layer, role in of if role == "producer"} == {"paths.0", "paths.1", "select"}
    # Channel c of the stack is weighed by outputs c and 6 + c.
    assert of["select", "producer"].span == 2
    assert channel_indices(of["select", "producer"], torch.tensor([1])).tolist() == [1, 7]
    assert {layer for layer, role in of if role == "consumer"} == {"reduce", "read"}


@dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor


class Wrapped(nn.Sequential):
    """Hands its logits back in one of several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3))
        self.fc, self.kind = nn.Linear(5, 3), kind

    def forward(self, x):
        for layer in list(self)[:-1]:
            x = layer(x)
        features = torch.relu(x).mean((2, 3))
        logits = self.fc(features)
        if self.kind == "object":
            return Output(logits, features)
        return {"logits": logits, "loss": None, "more": (features, 1.0)} if self.kind == "dict" else logits


@pytest.mark.parametrize("kind", ["object", "dict"])
def test_logits_may_come_in_an_object_or_beside_what_is_no_tensor(kind):
    # Once a bug: Torch-Pruning was given the output as it was, and could not iterate over an object or None.
    model = tiny.randomise(Wrapped(kind))
    found, wanted = (find_units(m, IMAGE) for m in (model, tiny.randomise(Wrapped("tensor"))))
    assert found == wanted
    assert [g.name for g in found.groups] == ["2", "4"]
    assert sound(model, found, IMAGE) == found


def test_a_size_may_be_a_tensor():
    # 🤗 Longformer views by a quotient that it computes with torch.div.
    class Chunked(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down, self.head = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 2)

        def forward(self, x):
            x = self.up(x)
            parts = torch.div(torch.tensor(x.shape[1]), 2, rounding_mode="floor")
            x = x.view(x.shape[0], parts, 2, -1).flatten(1, 2)
            return self.head(self.down(x).relu())

    net = tiny.randomise(Chunked()).eval()
    assert [g.name for g in find_units(net, torch.randn(1, 4, 6)).groups] == ["down"]
