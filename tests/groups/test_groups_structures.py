"""Structures of other people's networks: what is offered can be cut, and nothing is left whole in silence."""

import copy

import pytest
import torch
from torch import nn

import tiny
import tiny_structures
from coprune.budget.cost import cost_model
from coprune.groups import find_units
from coprune.layers import is_convolution, is_recurrent
from coprune.measure.macs import layer_costs
from coprune.seeding import generator
from coprune.surgery import cut, masked, sound
from coprune.tracing.forward import joined, mapped, run, tensors_of

NAMES = list(tiny_structures.networks())
SHARE = 0.6


def made(name):
    """The network in float64, with two samples."""
    torch.manual_seed(0)
    net, example = tiny_structures.networks()[name]
    net = tiny.randomise(net).double()
    example = mapped(example, lambda t: t.double() if t.is_floating_point() else t)
    return net, example


def offered(net, example):
    return sound(net, find_units(net, example, coupled=True), example)


def within_budget(cost, groups, share):
    """Units of every group such that the costs come to a share, one unit after the other from the widest."""
    counts = {g.name: g.size for g in groups}
    floor = {g.name: max(1, g.size // 8) for g in groups}
    while cost.ratio(counts) > share:
        able = [g for g in groups if counts[g.name] > floor[g.name]]
        if not able:
            return None
        widest = max(able, key=lambda g: counts[g.name] / g.size)
        counts[widest.name] -= 1
    return counts


def decided(groups, counts):
    drawing = generator(0, "kept")
    kept = {g.name: torch.randperm(g.size, generator=drawing)[: counts[g.name]].tolist() for g in groups}
    return tuple(g.decision(kept[g.name], "drawn") for g in groups)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_is_what_is_masked_and_the_budget_is_met(name):
    net, example = made(name)
    units = offered(net, example)
    assert units.groups
    cost = cost_model(net, example, units.groups)
    counts = within_budget(cost, units.groups, SHARE)
    assert counts is not None, {s.layer: s.reason for s in units.skipped}
    decisions = decided(units.groups, counts)
    smaller = cut(net, decisions)
    samples = joined([example, mapped(example, lambda t: t.flip(-1) if t.ndim > 1 else t)])
    with torch.no_grad():
        with masked(net, decisions):
            expected = tensors_of(run(net, samples))
        found = tensors_of(run(smaller, samples))
    for one, due in zip(found, expected, strict=True):
        assert one.shape == due.shape
        assert float((one - due).abs().max()) < 1e-5
    costs = [sum(layer.macs for layer in layer_costs(m, example)) for m in (smaller, net)]
    assert costs[0] / costs[1] == pytest.approx(cost.ratio(counts), abs=0.02)
    assert SHARE - 0.1 < costs[0] / costs[1] < SHARE + 0.02


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_offered_or_named_with_one_line(name):
    net, example = made(name)
    units = offered(net, example)
    known = {layer for g in units.groups for layer in g.producers} | {s.layer for s in units.skipped}
    for layer, module in net.named_modules():
        dense = isinstance(module, nn.Linear) or (is_convolution(module) and module.groups == 1)
        if dense or is_recurrent(module):
            assert layer in known
    assert all(s.reason and "\n" not in s.reason for s in units.skipped)


@pytest.mark.parametrize("name", NAMES)
def test_only_what_begins_and_what_ends_a_network_stays_whole(name):
    net, example = made(name)
    units = offered(net, example)
    ends = ("first layer", "makes the model's output", "its channels can only go", "single")
    assert not {s.layer: s.reason for s in units.skipped if not any(e in s.reason for e in ends)}


class Hard(nn.Module):
    """A width that stands in the code, in a module's forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3)
        self.more, self.head = nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x):
        x = torch.relu(self.mid(torch.relu(self.stem(x)))).mean((2, 3))
        return self.head(torch.relu(self.more(x.view(-1, 12))))


def test_a_width_in_the_code_is_named_with_its_line_and_leaves_the_rest_alone():
    net, example = tiny.randomise(Hard()), torch.randn(1, 3, 8, 8)
    units = offered(net, example)
    assert [g.name for g in units.groups] == ["more"]
    reason = {s.layer: s.reason for s in units.skipped}["mid"]
    assert "x.view(-1, 12)" in reason
    assert "test_groups_structures.py, line" in reason


def test_the_network_is_as_it_was_and_its_sizes_are_plain_numbers():
    net, example = made("c2f, split")
    before = copy.deepcopy(net)
    offered(net, example)
    assert type(net[1].c) is int
    assert tiny.same_state(tiny.state_of(before), tiny.state_of(net))


class Asserting(nn.Module):
    """A forward pass that asserts its width by an attribute, as diffusers' do."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 12
        self.stem, self.mid, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 4, 3)

    def forward(self, x):
        x = torch.relu(self.mid(torch.relu(self.stem(x))))
        assert x.shape[1] == self.channels
        assert self.channels == x.size(1)
        return self.head(x)


def test_an_attribute_that_a_width_is_compared_with_changes_with_it():
    net, example = tiny.randomise(Asserting()), torch.randn(1, 3, 8, 8)
    (group,) = offered(net, example).groups
    smaller = cut(net, (group.decision(range(5), "five"),))
    assert (smaller.channels, net.channels) == (5, 12)
    assert smaller(example).shape == net(example).shape
