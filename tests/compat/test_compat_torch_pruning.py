"""What goes with a layer's channels: Torch-Pruning's own group, found by a walk that ends."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_pruning.dependency import index_mapping

import tiny
import tiny_coupled
from coprune.compat.torch_pruning import (
    SUPPORTED,
    ChannelGraph,
    NotFollowedError,
    check_version,
    unknown_parts,
)
from coprune.errors import UserError
from coprune.groups import channel_indices, find_units
from coprune.layers import is_dense, is_grouped
from coprune.surgery import sound

IMAGE = torch.zeros(1, 1, 12, 12)
NETS = {**tiny_coupled.networks(), "vgg": tiny.network("vgg16_bn"), "densenet": tiny.network("densenet40")}


def channels_at(places):
    """Where a group reaches → which channels there."""
    found = {}
    for place in places:
        found.setdefault((place.layer, place.side, place.parameter), set()).update(place.channels)
    return found


def by_torch_pruning(graph, layer, channels):
    """What its own walk says goes with some channels, at the places that have channels."""
    own = graph._graph
    root = graph._model.get_submodule(layer)
    with unknown_parts():
        group = own.get_pruning_group(root, own.get_pruner_of_module(root).prune_out_channels, channels)
    places = (graph.place(item.dep, item.idxs, item.root_idxs) for item in group)
    return channels_at(place for place in places if place is not None)


@pytest.mark.parametrize("name", ["resnet20", "stream", "plain", "dense", "normed", "vgg", "densenet"])
def test_the_walk_finds_what_torch_prunings_own_does(name):
    net = NETS[name]
    graph = ChannelGraph(net, torch.zeros(1, 1, 28, 28) if name in ("vgg", "densenet") else IMAGE)
    layers = [n for n, m in net.named_modules() if is_dense(m)]
    for layer in layers[:-1][:6]:
        ours = graph.follow(layer)
        count = net.get_submodule(layer).weight.shape[0]
        assert channels_at(ours) == by_torch_pruning(graph, layer, list(range(count)))
        # And what goes with one channel alone is what says that it goes with it.
        for channel in range(count):
            said = channels_at(
                replace(p, channels=[i for i, r in zip(p.channels, p.roots, strict=True) if r == channel])
                for p in ours
            )
            alone = by_torch_pruning(graph, layer, [channel])
            assert {place: some for place, some in said.items() if some} == alone


class Attention(nn.Module):
    """Keys times queries between grouped channels, whose regrouping Torch-Pruning misreads."""

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


def test_the_walk_ends_where_channels_are_regrouped():
    net = tiny.randomise(Attention())
    graph = ChannelGraph(net, IMAGE)
    started = time.monotonic()
    with suppress(NotFollowedError):
        assert all(max(place.channels) < 24 for place in graph.follow("qkv"))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["efficientvit_m0", "xcit_nano_12_p16_224", "shvit_s1"])
def test_networks_that_torch_prunings_own_walk_or_count_stops_at(name):
    timm = pytest.importorskip("timm")
    net = timm.create_model(name, pretrained=False).eval()
    size = net.default_cfg["input_size"][-1]
    graph = ChannelGraph(net, torch.zeros(1, 3, size, size))
    started = time.monotonic()
    for layer, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d) and not is_grouped(module) and layer in graph:
            with suppress(NotFollowedError):
                assert len(graph.follow(layer)) > 1
    assert time.monotonic() - started < 60


def test_frozen_layers_are_traced_and_stay_frozen():
    net = tiny.network("resnet20")
    net.requires_grad_(False)
    graph = ChannelGraph(net, torch.zeros(1, 1, 28, 28))
    assert graph.follow("fc")
    assert not any(p.requires_grad for p in net.parameters())


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


def test_this_torch_pruning_is_one_whose_internals_are_known(monkeypatch):
    # Fails loudly on a new one: see whether the work-arounds still hold, then move the range and the pin.
    check_version()
    first, beyond = (".".join(map(str, part)) for part in SUPPORTED)
    pin = f'"torch-pruning>={first},<{beyond}"'
    assert pin in (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for other in ("1.5.9", "1.7.0", "2.0"):
        monkeypatch.setattr("coprune.compat.torch_pruning.version", lambda _, other=other: other)
        with pytest.raises(UserError, match=rf"torch-pruning {other} is installed.*pip install"):
            ChannelGraph(nn.Linear(2, 2), torch.zeros(1, 2))


def test_what_is_patched_is_there_and_comes_back():
    names = [
        f"update_{kind}_index_mapping" for kind in ("concat", "split", "reshape", "unbind", "expand", "slice")
    ]
    before = [getattr(index_mapping, name) for name in names]
    with unknown_parts():
        assert not any(getattr(index_mapping, n) is b for n, b in zip(names, before, strict=True))
    assert [getattr(index_mapping, name) for name in names] == before
