"""A cut network computes what the masked one computes, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.models.registry import source_of
from coprune.plan import Plan
from coprune.surgery import apply_plan, check_fits, cut, masked

NETS = ["resnet20", "resnet56", "vgg16_bn", "flattened", "perceptron", "depthwise"]
IMAGE = torch.zeros(1, 1, 12, 12)


def images(seed, n=5):
    return torch.randn(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def outputs(net, decisions, x):
    """Of the masked and of the cut network."""
    with masked(net, decisions):
        silenced = net(x)
    return silenced, cut(net, decisions)(x)


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_masked_and_cut_networks_agree(traced, name, seed):
    net, units = traced[name]
    decisions = tiny.random_decisions(units.groups, seed)
    silenced, smaller = outputs(net, decisions, images(seed))
    scale = float(silenced.abs().max())
    assert torch.allclose(silenced, smaller, rtol=0, atol=1e-5 * max(1.0, scale))
    # A mask that does nothing would agree with a cut that does nothing.
    if all(len(d.kept) <= d.size // 2 for d in decisions):
        assert not torch.allclose(net(images(seed)), smaller, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_one_unit_left_in_every_group_still_agrees_and_differs_from_the_whole(traced, name):
    net, units = traced[name]
    decisions = tuple(tiny.decision(g, [g.size - 1]) for g in units.groups)
    x = images(1)
    silenced, smaller = outputs(net, decisions, x)
    scale = float(silenced.abs().max())
    assert torch.allclose(silenced, smaller, rtol=0, atol=1e-5 * max(1.0, scale))
    with torch.no_grad():
        assert not torch.allclose(net(x), smaller, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", NETS)
def test_everything_kept_is_the_same_network(traced, name):
    net, units = traced[name]
    whole = cut(net, tuple(tiny.decision(g, list(range(g.size))) for g in units.groups))
    assert whole is not net
    assert tiny.same_state(tiny.state_of(net), tiny.state_of(whole))
    with torch.no_grad():
        assert torch.equal(net(images(0)), whole(images(0)))


@pytest.mark.parametrize("name", NETS)
def test_the_weights_that_stay_are_the_kept_ones_in_order(traced, name):
    net, units = traced[name]
    decisions = tiny.random_decisions(units.groups, 3)
    smaller = cut(net, decisions)
    read = {m.layer: (d, m) for d in decisions for m in d.members if m.role == "consumer"}
    for d in decisions:
        wanted = net.get_submodule(d.name).weight[list(d.kept)]
        if d.name in read:  # its inputs were cut, too
            by, member = read[d.name]
            inputs = [u * member.span + i for u in by.kept for i in range(member.span)]
            wanted = wanted[:, inputs]
        assert torch.equal(smaller.get_submodule(d.name).weight, wanted)


def test_the_original_is_untouched(traced):
    net, units = traced["vgg16_bn"]
    before, shapes = tiny.state_of(net), str(net)
    smaller = cut(net, tiny.random_decisions(units.groups, 5))
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.zero_()
    assert tiny.same_state(before, tiny.state_of(net))
    assert str(net) == shapes
    assert not smaller.training


def test_the_mask_is_gone_afterwards_also_after_an_error(traced):
    net, units = traced["resnet20"]
    decisions = tiny.random_decisions(units.groups, 1)
    with torch.no_grad():
        before = net(images(2))
        with pytest.raises(RuntimeError, match="inside"), masked(net, decisions):
            raise RuntimeError("inside")
        assert torch.equal(net(images(2)), before)
    assert all(not m._forward_pre_hooks for m in net.modules())


def test_a_cut_network_remembers_its_source(traced):
    net, units = traced["resnet20"]
    assert source_of(cut(net, tiny.random_decisions(units.groups, 1))) == source_of(net)


def test_what_was_frozen_stays_frozen():
    # Once a bug: Torch-Pruning makes new parameters that require gradients, so that a
    # frozen backbone would be trained after surgery.
    net = tiny.randomise(tiny.Flattened())
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    units = find_units(net, IMAGE)
    smaller = cut(net, tuple(tiny.decision(g, [0, 2]) for g in units.groups))
    assert not [n for n, p in smaller.named_parameters() if p.requires_grad]


def test_no_gradients_of_the_trace_remain(traced):
    net, units = traced["flattened"]
    smaller = cut(net, tiny.random_decisions(units.groups, 1))
    assert all(p.grad is None for p in [*net.parameters(), *smaller.parameters()])


def plan(decisions):
    return Plan(
        schema=1, method="test", settings={}, budget="knee", seed=0, model="m", data={}, groups=decisions
    )


def test_a_plan_is_applied_like_its_decisions(traced):
    net, units = traced["resnet20"]
    decisions = tiny.random_decisions(units.groups, 4)
    one, other = apply_plan(net, plan(decisions), IMAGE), cut(net, decisions)
    assert tiny.same_state(tiny.state_of(one), tiny.state_of(other))


@pytest.mark.parametrize(
    ("made_for", "applied_to", "cause"),
    [
        ("resnet56", "resnet20", "layer1.3.conv1"),  # more blocks
        ("vgg16_bn", "resnet20", "features.3"),
        ("flattened", "perceptron", "conv2"),
    ],
)
def test_a_plan_for_another_network_is_refused(traced, made_for, applied_to, cause):
    decisions = tiny.random_decisions(traced[made_for][1].groups, 0)
    if made_for == "resnet56":  # widths differ as well; only its surplus blocks are asked for
        decisions = tuple(d for d in decisions if d.name.startswith("layer1.3"))
    with pytest.raises(UserError, match=f"plan for another model: layer '{cause}'"):
        apply_plan(traced[applied_to][0], plan(decisions), IMAGE)


def test_a_plan_for_another_width_is_refused_with_both_figures(traced):
    wider = tiny.network("resnet20", width=6)
    with pytest.raises(UserError, match=r"layer 'layer1\.0\.conv1' has 6 channels, the plan says 4"):
        cut(wider, tiny.random_decisions(traced["resnet20"][1].groups, 0))


def test_a_plan_is_refused_by_the_network_it_was_already_applied_to(traced):
    net, units = traced["resnet20"]
    decisions = tuple(tiny.decision(g, [0, 1]) for g in units.groups)
    smaller = cut(net, decisions)
    with pytest.raises(UserError, match="plan for another model"):
        cut(smaller, decisions)
    with pytest.raises(UserError, match="plan for another model"), masked(smaller, decisions):
        pass


def test_a_fitting_plan_is_accepted(traced):
    net, units = traced["flattened"]
    check_fits(net, tiny.random_decisions(units.groups, 0))


class Concatenated(nn.Module):
    """Two convolutions whose channels lie side by side, as in DenseNet and Inception."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.left = nn.Conv2d(4, 8, 3)
        self.right = nn.Conv2d(4, 6, 3)
        self.read = nn.Conv2d(14, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        h = self.stem(x)
        return self.fc(torch.relu(self.read(torch.cat([self.left(h), self.right(h)], 1))).mean((2, 3)))


def test_offered_parts_of_a_concatenation_can_be_cut():
    # Once a bug: the first part has offset 0, and a consumer with more channels than
    # that part is taken for another model. find_units offers the group as "inner".
    net = tiny.randomise(Concatenated())
    units = find_units(net, IMAGE)
    decisions = tuple(tiny.decision(g, [0, 2, 3]) for g in units.groups)
    silenced, smaller = outputs(net, decisions, images(0))
    assert torch.allclose(silenced, smaller, atol=1e-5)


class Tokens(nn.Module):
    """Linear layers that read [N, T, U], as in every transformer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.down(torch.relu(self.up(self.embed(x.squeeze(1))))).mean(1))


def test_units_of_tokens_are_masked_as_they_are_cut():
    # Once a bug: dimension 1 of a linear layer's input is T here, not U; the mask
    # silences tokens. (Images [1, 12, 12] stand for 12 tokens of 12 features.)
    net = tiny.randomise(Tokens())
    units = find_units(net, IMAGE)
    assert "up" in [g.name for g in units.groups]
    decisions = tuple(tiny.decision(g, [0, 2, 3]) for g in units.groups)
    silenced, smaller = outputs(net, decisions, images(0))
    assert torch.allclose(silenced, smaller, atol=1e-5)


class Normalised(nn.Module):
    """A norm over units between two linear layers."""

    def __init__(self, between):
        super().__init__()
        self.fc1 = nn.Linear(144, 9)
        self.fc2 = nn.Linear(9, 8)
        self.between = between
        self.fc3 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc3(self.between(self.fc2(torch.relu(self.fc1(x.flatten(1))))))


def test_whatever_is_offered_behind_a_layer_norm_is_cut_as_it_is_masked():
    # Once a bug: offered as "inner", but the layer norm's mean and spread change with the cut.
    net = tiny.randomise(Normalised(nn.LayerNorm(8)))
    decisions = tuple(tiny.decision(g, [0, 2, 3]) for g in find_units(net, IMAGE).groups)
    silenced, smaller = outputs(net, decisions, images(0))
    assert torch.allclose(silenced, smaller, atol=1e-5)
