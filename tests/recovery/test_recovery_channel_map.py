"""Which channels are still there: as surgery left them, and as they can be told without a plan."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.plan import GroupDecision, Member
from coprune.recovery import kept_outputs, matched_outputs
from coprune.surgery import cut

IMAGE = torch.zeros(1, 1, 12, 12)
NETS = ["resnet20", "vgg16_bn", "flattened", "perceptron"]


def noise(n=40, seed=0):
    return torch.randn(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def as_lists(kept):
    return {name: index.tolist() for name, index in kept.items()}


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_kept_outputs_are_those_that_surgery_left(traced, name, seed):
    net, units = traced[name]
    # Every output channel of every layer is told by its bias-like number.
    numbered = copy.deepcopy(net)
    with torch.no_grad():
        for module in numbered.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
                weight = module.weight
                weight.copy_(
                    torch.arange(len(weight.data)).view(-1, *[1] * (weight.ndim - 1)).expand_as(weight)
                )
    decisions = tiny.random_decisions(units.groups, seed)
    smaller = cut(numbered, decisions)
    kept = kept_outputs(net, decisions)
    lost = set()
    for layer, module in numbered.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)):
            left = smaller.get_submodule(layer).weight.detach().flatten(1 if module.weight.ndim > 1 else 0)
            left = left[:, 0] if left.ndim > 1 else left
            if len(left) < len(module.weight):
                lost.add(layer)
                assert kept[layer].tolist() == left.int().tolist()
    assert set(kept) == lost  # layers that lost nothing are not listed


def light(units, seed=0):
    """One unit of every group is cut."""
    generator = torch.Generator().manual_seed(seed)
    gone = [int(torch.randint(g.size, (1,), generator=generator)) for g in units.groups]
    return tuple(
        tiny.decision(g, [u for u in range(g.size) if u != out])
        for g, out in zip(units.groups, gone, strict=True)
    )


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("name", ["flattened", "perceptron", "depthwise"])
@pytest.mark.parametrize("seed", range(3))
def test_channels_are_told_by_their_behaviour(name, seed, rescaled):
    net = tiny.randomise(
        {"flattened": tiny.Flattened, "perceptron": tiny.Perceptron, "depthwise": tiny.Depthwise}[name]()
    )
    units = find_units(net, IMAGE)
    decisions = light(units, seed)[:1]
    pruned = cut(net, decisions)
    if rescaled:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in pruned.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    shape = [-1] + [1] * (module.weight.ndim - 1)
                    module.weight *= 0.5 + torch.rand(len(module.weight), generator=generator).view(shape)
                    module.bias += torch.rand(len(module.bias), generator=generator)
    before, x = (tiny.state_of(net), tiny.state_of(pruned)), noise()
    found = matched_outputs(pruned, net, x)
    wanted = as_lists(kept_outputs(net, decisions))
    # Norms and depthwise layers are not solved and need not be told.
    assert as_lists(found) == {layer: wanted[layer] for layer in found}
    assert decisions[0].name in found
    assert torch.equal(x, noise())
    assert tiny.same_state(before[0], tiny.state_of(net))
    assert tiny.same_state(before[1], tiny.state_of(pruned))
    assert all(not m._forward_hooks for model in (net, pruned) for m in model.modules())


@pytest.mark.parametrize("name", NETS)
def test_with_the_groups_known_channels_are_told_by_their_weights_however_much_is_gone(traced, name):
    net, units = traced[name]
    decisions = tiny.random_decisions(units.groups, 7)
    pruned = cut(net, decisions)
    with torch.no_grad():  # trained since, a little
        for parameter in pruned.parameters():
            if parameter.ndim > 1:
                parameter *= 1.2
                parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    found = matched_outputs(pruned, net, noise(8), units.groups)
    wanted = as_lists(kept_outputs(net, decisions))
    assert sorted(found) == sorted(d.name for d in decisions if len(d.kept) < d.size)
    assert as_lists(found) == {layer: wanted[layer] for layer in found}


def test_an_unpruned_copy_has_lost_nothing(traced):
    net = traced["flattened"][0]
    assert matched_outputs(copy.deepcopy(net), net, noise()) == {}


class Shifted(tiny.Flattened):
    """Its first operation works in place."""

    def forward(self, x):
        return super().forward(x.clamp_(min=0.0))


def test_a_first_layer_that_works_in_place_leaves_the_samples():
    # Once a bug: the pruned model's pass changed the samples that the unpruned one was told by.
    net = tiny.randomise(Shifted())
    group = find_units(net, IMAGE.clone()).groups[0]
    decisions = (tiny.decision(group, [0, 2, 3]),)
    x = noise()
    found = matched_outputs(cut(net, decisions), net, x)
    assert as_lists(found)[group.name] == [0, 2, 3]
    assert torch.equal(x, noise())


def test_another_network_is_refused(traced):
    net, other = traced["resnet20"][0], traced["vgg16_bn"][0]
    with pytest.raises(UserError, match="not the same network"):
        matched_outputs(other, net, noise(8))


def test_a_network_that_was_trained_elsewhere_is_refused_and_the_layer_named(traced):
    net = traced["flattened"][0]
    other = tiny.randomise(tiny.Flattened(), seed=5)
    group = find_units(other, IMAGE).groups[0]
    pruned = cut(other, (tiny.decision(group, [0, 2, 4]),))
    with pytest.raises(UserError, match=f"layer '{group.name}'.*with plan"):
        matched_outputs(pruned, net, noise())


def test_constant_channels_are_no_nan(traced):
    # A channel that never varies correlates with none: it takes what is left over, or is refused by name.
    net = copy.deepcopy(traced["perceptron"][0])
    with torch.no_grad():
        net.fc1.weight[4] = 0.0
    group = next(g for g in find_units(net, IMAGE).groups if g.name == "fc2")
    pruned = cut(net, (tiny.decision(group, [0, 1, 2, 4]),))
    assert as_lists(matched_outputs(pruned, net, noise())) == {"fc2": [0, 1, 2, 4]}


def test_carriers_without_a_row_a_channel_have_none_kept():
    net = nn.ModuleDict(
        {"q": nn.Linear(6, 16), "slope": nn.PReLU(), "slopes": nn.PReLU(16), "places": nn.Embedding(4, 8)}
    )
    members = (
        Member(layer="q", role="producer", span=2),
        *(Member(layer=name, role="carrier", span=2) for name in ("slope", "slopes")),
        Member(layer="places", role="carrier"),
    )
    decision = GroupDecision(name="q", members=members, size=8, kept=(0, 5), reason="test")
    assert as_lists(kept_outputs(net, [decision])) == {"q": [0, 1, 10, 11], "slopes": [0, 1, 10, 11]}
