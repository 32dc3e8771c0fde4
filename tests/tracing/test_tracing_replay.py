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


class Block(nn.Module):
    """A layer, a norm, an activation."""

    def __init__(self, width):
        super().__init__()
        self.layer, self.norm, self.calls = nn.Linear(width, 6), nn.BatchNorm1d(6), 0

    def forward(self, x):
        self.calls += 1
        return self.norm(self.layer(x)).relu()


class Chain(nn.Module):
    """Blocks one after the other."""

    def __init__(self):
        super().__init__()
        self.blocks, self.fc = nn.ModuleList([Block(144), Block(6), Block(6)]), nn.Linear(6, 3)

    def forward(self, x):
        x = x.flatten(1)
        for block in self.blocks:
            x = block(x)
        return self.fc(x)


class Leaves(Block):
    """Leaves what came of it in a dict, not by a hook: those run even when it does not."""

    def __init__(self, width, keep):
        super().__init__(width)
        self.keep = lambda: keep

    def forward(self, x):
        self.keep()["left"] = super().forward(x)
        return self.keep()["left"]


class Asks(Chain):
    """Its last layer reads what the first block has left behind its back, in an attribute or not."""

    def __init__(self, keep):
        super().__init__()
        keep = vars(self) if keep is None else keep
        self.blocks[0] = Leaves(144, keep)
        self.keep = lambda: keep

    def forward(self, x):
        return super().forward(x) + self.fc(self.keep()["left"])


class Takes(Asks):
    """There it is gone for good, so that it is missing once the first block does not run."""

    def forward(self, x):
        x = Chain.forward(self, x)
        return x + self.fc(self.keep().pop("left"))


def networks():
    yield "resnet20", tiny.network("resnet20")
    for kind in (InPlace, Twice, Lazy, Inference, tiny.Flattened, tiny.Depthwise, Chain):
        yield kind.__name__, tiny.randomise(kind())
    yield "attribute", tiny.randomise(Asks(None))
    yield "elsewhere", tiny.randomise(Asks({}))
    yield "taken", tiny.randomise(Takes({}))


NETWORKS = dict(networks())


def layers_of(net):
    return [n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def batches(n=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 1, 12, 12, generator=generator) for _ in range(n)]


def whole(passed):
    return torch.cat([output for _, output in passed])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("memory", "count"), [(0, 3), (20_000, 3), (1 << 30, 3), (1 << 30, 1)])
@torch.no_grad()
def test_a_pass_with_a_changed_layer_is_the_whole_pass(name, memory, count):
    net, parts = NETWORKS[name].eval(), batches(count)
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
        whole(again.again([layers[position]]))  # with the modules in front, to be sure of going without them
        with FlopCounterMode(display=False) as counter:
            whole(again.again([layers[position], layers[-1]]))
        assert counter.get_total_flops() == sum(of_layer[name] for name in layers[position:])


@torch.no_grad()
def test_modules_in_front_do_not_run_once_a_pass_without_them_came_to_the_same():
    net, parts = tiny.randomise(Chain()).eval(), batches()
    again = Replay(net, parts)
    whole(again.first())
    for expected in ([1, 1, 4], [0, 0, 3]):  # the first batch passes with them and without
        for block in net.blocks:
            block.calls = 0
        whole(again.again(["blocks.2.layer"]))
        assert [block.calls for block in net.blocks] == expected
    assert all("forward" not in block.__dict__ for block in net.blocks)


@torch.no_grad()
def test_no_more_is_kept_than_allowed():
    net, parts = tiny.network("resnet20").eval(), batches()
    kept = []
    for memory in (0, 50_000, 1 << 30):
        again = Replay(net, parts, memory=memory)
        whole(again.first())
        held = [t for _, known in again._batches for t in known.products.values()]
        held += [block.output for _, known in again._batches for block in known.blocks.values()]
        kept.append(sum(t.untyped_storage().nbytes() for t in held))
        assert kept[-1] <= memory
    assert 0 == kept[0] < kept[1] < kept[2]
    assert replay.MEMORY <= 1 << 30
