"""Passes that skip what lies in front of a change come to what whole passes come to."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tiny
from coprune.tracing import replay
from coprune.tracing.replay import Replay


class InPlace(nn.Module):
    """Convolutions without batch norm, all of whose outputs are changed in place, one of them in a sum."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.a(x.mul_(2.0))
        x += self.b(x.relu_())
        return self.fc(self.c(F.relu_(x)).relu_().mean((2, 3)))


class Twice(nn.Module):
    """A layer that runs twice, and one that is never entered: its weight is used without it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = self.b(self.a(self.a(x).relu()).relu()).relu().mean((2, 3))
        return F.linear(x, self.fc.weight)


class Lazy(nn.Module):
    """Makes a table by products on its first pass only, between two layers of one shape."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(144, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.table = None

    def forward(self, x):
        x = self.a(x.flatten(1))
        if self.table is None:
            self.table = F.linear(F.linear(torch.ones(6, 6), torch.eye(6)), torch.eye(6)).mean(0)
        return self.fc(self.b(x.relu() + self.table).relu())


class Inference(tiny.Flattened):
    """Makes tensors of which it is not counted how often they are changed."""

    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x).clone()


def networks():
    yield "resnet20", tiny.network("resnet20")
    for kind in (InPlace, Twice, Lazy, Inference, tiny.Flattened, tiny.Depthwise):
        yield kind.__name__, tiny.randomise(kind())


NETWORKS = dict(networks())


def layers_of(net):
    return [n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def batches(n=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 1, 12, 12, generator=generator) for _ in range(n)]


def whole(passed):
    return torch.cat([output for _, output in passed])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("memory", [0, 20_000, 1 << 30])
@torch.no_grad()
def test_a_pass_with_a_changed_layer_is_the_whole_pass(name, memory):
    net, parts = NETWORKS[name].eval(), batches()
    layers = layers_of(net)
    again = Replay(net, parts, memory=memory)
    logits = whole(again.first())
    assert torch.equal(logits, torch.cat([net(x.clone()) for x in parts]))
    for _ in range(2):  # the second time meets what the first has left
        for layer in layers:
            weight = net.get_submodule(layer).weight
            before = weight.clone()
            weight *= -0.7
            found, wanted = whole(again.again([layer])), torch.cat([net(x.clone()) for x in parts])
            weight.copy_(before)
            assert torch.equal(found, wanted), layer
            assert not torch.equal(found, logits), layer
    assert torch.equal(whole(again.again(layers[-1:])), logits)
    assert all(not m._forward_pre_hooks for m in net.modules())


@torch.no_grad()
def test_what_lies_in_front_is_not_computed_again():
    net = tiny.network("vgg16_bn", width=3).eval()
    layers, parts = layers_of(net), batches(1)
    again = Replay(net, parts)
    whole(again.first())
    with FlopCounterMode(display=False) as all_of_it:
        net(parts[0])
    of_layer = {
        name: sum(all_of_it.get_flop_counts()[f"{type(net).__name__}.{name}"].values()) for name in layers
    }
    assert sum(of_layer.values()) == all_of_it.get_total_flops()
    for position in (0, 5, len(layers) - 1):
        with FlopCounterMode(display=False) as counter:
            whole(again.again([layers[position], layers[-1]]))
        assert counter.get_total_flops() == sum(of_layer[name] for name in layers[position:])


@torch.no_grad()
def test_no_more_is_kept_than_allowed():
    net, parts = tiny.network("resnet20").eval(), batches()
    kept = []
    for memory in (0, 50_000, 1 << 30):
        again = Replay(net, parts, memory=memory)
        whole(again.first())
        held = [t for _, known in again._batches for t in known.products.values()]
        kept.append(sum(t.untyped_storage().nbytes() for t in held))
        assert kept[-1] <= memory
    assert 0 == kept[0] < kept[1] < kept[2]
    assert replay.MEMORY <= 1 << 30
