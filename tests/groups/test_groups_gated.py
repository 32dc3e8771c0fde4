"""Channels that are multiplied go together and serve one reader: they are offered like any others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from coprune.data import in_memory
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.pipeline.surviving import surviving
from coprune.surgery import cut, sound

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Gated(nn.Module):
    """A stem, something gated, and a head."""

    def __init__(self, how, **layers):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.how = how

    def forward(self, x):
        return self.head(self.how(self, self.stem(x)))


def conv(read, made):
    return nn.Conv2d(read, made, 1)


def squeeze_and_excite(net, x):
    x = net.up(x)
    return net.down(x * net.excite(F.relu(net.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid())


def in_one_layer(net, x):
    value, gate = net.up(x).chunk(2, 1)
    return net.down(value * F.silu(gate))


GATES = {
    "squeeze and excite": (
        squeeze_and_excite,
        {"up": conv(8, 16), "squeeze": conv(16, 4), "excite": conv(4, 16), "down": conv(16, 8)},
        {"up", "excite"},
    ),
    "two layers": (
        lambda net, x: net.down(F.silu(net.gate(x)) * net.up(x)),
        {"gate": conv(8, 16), "up": conv(8, 16), "down": conv(16, 8)},
        {"gate", "up"},
    ),
    "one layer in two parts": (in_one_layer, {"up": conv(8, 32), "down": conv(16, 8)}, {"up"}),
    "glu": (
        lambda net, x: net.down(F.glu(net.up(x), 1)),
        {"up": conv(8, 32), "down": conv(16, 8)},
        {"up"},
    ),
    "a quotient": (
        lambda net, x: net.down(net.up(x) / (1 + net.gate(x).exp())),
        {"gate": conv(8, 16), "up": conv(8, 16), "down": conv(16, 8)},
        {"gate", "up"},
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gated_block_s_channels_are_inner_ones(name):
    how, layers, makers = GATES[name]
    net = tiny.randomise(Gated(how, **layers))
    units = sound(net, find_units(net, IMAGE), IMAGE)
    (group,) = [g for g in units.groups if makers == set(g.producers)]
    assert (group.kind, group.size) == ("inner", 16)


@pytest.mark.parametrize(
    "how",
    [
        lambda net, x: net.down(net.up(x) * net.gate(x) + net.more(x)),
        lambda net, x: net.down((net.up(x) + net.more(x)) * net.gate(x)),
        lambda net, x: net.down(torch.cat([net.up(x) * net.gate(x), net.more(x)], 1)[:, :16]),
    ],
    ids=["product in a sum", "sum in a product", "product in a concatenation"],
)
def test_what_is_added_or_joined_too_stays_coupled(how):
    layers = {"up": conv(8, 16), "gate": conv(8, 16), "more": conv(8, 16), "down": conv(16, 8)}
    net = tiny.randomise(Gated(how, **layers))
    kinds = {g.name: g.kind for g in find_units(net, IMAGE, coupled=True).groups}
    assert kinds["up"] == "coupled"
    assert "up" not in {g.name for g in find_units(net, IMAGE).groups}


class Recurrent(nn.Module):
    """A convolutional cell whose first state is as large as its input."""

    def __init__(self, first):
        super().__init__()
        self.enter, self.cell, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 2, 1)
        self.first = first

    def forward(self, x):
        x = self.enter(x)
        state = self.first(x)
        for _ in range(2):
            state = self.cell(torch.cat([x, state], 1)).tanh()
        return self.head(state)


@pytest.mark.parametrize("first", [torch.zeros_like, lambda x: x.new_zeros(x.shape), lambda x: x * 0])
def test_a_state_that_begins_as_large_as_another_tensor_goes_with_it(first):
    # Once refused when it was cut: the zeros had lost as many channels as the input, and the state none.
    net = tiny.randomise(Recurrent(first))
    units = sound(net, find_units(net, IMAGE, coupled=True, first=True), IMAGE)
    (group,) = units.groups
    assert set(group.producers) == {"enter", "cell"}


def test_what_nothing_that_counts_depends_on_is_left_alone():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.mid, self.head = nn.Conv2d(3, 8, 3), conv(8, 8), conv(8, 3)
            self.aside, self.other = conv(8, 8), conv(8, 3)

        def forward(self, x):
            x = self.stem(x)
            return {"out": self.head(self.mid(x)), "aux": self.other(self.aside(x))}

    net = tiny.randomise(Aside())
    units = find_units(net, IMAGE, counts=lambda output: (output["out"],))
    assert [g.name for g in units.groups] == ["mid"]
    reasons = {s.layer: s.reason for s in units.skipped}
    assert reasons["aside"] == "nothing that counts depends on it"
    assert {g.name for g in find_units(net, IMAGE).groups} == {"mid", "aside"}
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("name", GATES)
def test_without_a_plan_it_is_not_guessed_which_channels_of_a_gate_stayed(name):
    how, layers, makers = GATES[name]
    net = tiny.randomise(Gated(how, **layers)).eval()
    (group,) = [g for g in find_units(net, IMAGE).groups if makers == set(g.producers)]
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    source = in_memory([(images, torch.zeros(16, dtype=torch.int64))], labelled=False)
    left = cut(net, (group.decision([0, 2, 3, 7, 9, 12], ""),)).eval()
    with pytest.raises(UserError, match="that other layers share, and it is unknown which; give the plan"):
        surviving(left, net, source, None)
    assert surviving(net, net, source, None).outputs == {}
