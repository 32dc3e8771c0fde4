"""Coupled groups: what is cut computes what is masked, costs what was foretold, and loads again."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
import tiny_coupled
from coprune.budget.cost import cost_model
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.measure import count_macs, count_params
from coprune.plan import GroupDecision, Member
from coprune.store import load, save_model
from coprune.surgery import cut, masked

IMAGE = torch.zeros(1, 1, 12, 12)
NETS = {name: (net, find_units(net, IMAGE, coupled=True)) for name, net in tiny_coupled.networks().items()}


@torch.no_grad()
def both(net, decisions, x):
    with masked(net, decisions):
        silenced = net(x)
    return silenced, cut(net, decisions)(x)


@pytest.mark.parametrize("name", list(NETS))
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_masked_and_cut_networks_agree(name, dtype, within, seed):
    net, units = NETS[name]
    net = copy.deepcopy(net).to(dtype)
    decisions = tiny.random_decisions(units.groups, seed)
    x = torch.randn(5, 1, 12, 12, generator=torch.Generator().manual_seed(seed)).to(dtype)
    silenced, smaller = both(net, decisions, x)
    scale = max(1.0, float(silenced.abs().max()))
    assert torch.allclose(silenced, smaller, rtol=0, atol=within * scale)
    if any(len(d.kept) < d.size for d in decisions):
        assert not torch.equal(silenced, net(x))


@pytest.mark.parametrize("name", list(NETS))
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_costs_are_those_of_the_cut_network(name, seed):
    net, units = NETS[name]
    cost = cost_model(net, IMAGE, units.groups)
    assert cost.total({}) == count_macs(net, IMAGE)
    decisions = tiny.random_decisions(units.groups, seed)
    counts = {d.name: len(d.kept) for d in decisions}
    smaller = cut(net, decisions)
    assert cost.total(counts) == pytest.approx(count_macs(smaller, IMAGE), rel=1e-9)
    # Biases are counted as if they shrank with the inputs.
    biases = sum(p.numel() for n, p in net.named_parameters() if n.endswith("bias"))
    assert abs(cost.total(counts, "params") - count_params(smaller)) <= biases


@pytest.mark.parametrize("name", list(NETS))
def test_groups_cut_one_after_the_other_or_at_once_are_the_same(name):
    net, units = NETS[name]
    decisions = tiny.random_decisions(units.groups, 3)
    whole = [GroupDecision(**{**d.model_dump(), "kept": tuple(range(d.size))}) for d in decisions]
    at_once = cut(net, decisions)
    x = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cut(net, tuple(whole))(x), net(x))
    with masked(net, decisions):
        assert torch.allclose(at_once(x), net(x), atol=1e-4)


@pytest.mark.parametrize("name", list(NETS))
def test_a_cut_network_trains_and_loads_again(name, tmp_path):
    net, units = NETS[name]
    smaller = cut(net, tiny.random_decisions(units.groups, 5))
    x = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    smaller(x).square().sum().backward()
    assert all(p.grad is not None for p in smaller.parameters())
    save_model(tmp_path, smaller)
    again = load(tmp_path, model=copy.deepcopy(net))
    assert torch.equal(again(x), smaller(x))
    assert repr(again) == repr(smaller)  # sizes, groups and normalised shapes too


def test_a_cut_layer_norm_normalises_over_the_channels_that_stay():
    net, units = NETS["normed"]
    stream = next(g for g in units.groups if g.kind == "coupled")
    smaller = cut(net, (tiny.decision(stream, [0, 2, 5]),))
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([0, 2, 5])
    centred = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(smaller.norm(x), centred * net.norm.weight[kept] + net.norm.bias[kept], atol=1e-6)


def test_a_grouped_layer_loses_whole_blocks():
    net, units = NETS["grouped"]
    block = next(g for g in units.groups if g.name == "a")
    smaller = cut(net, (tiny.decision(block, [1, 3]),))
    assert (smaller.b.groups, smaller.b.in_channels, smaller.b.out_channels) == (2, 4, 4)
    assert torch.equal(smaller.b.weight, net.b.weight[[2, 3, 6, 7]])


def test_a_plan_for_a_concatenation_of_another_width_is_refused():
    _, units = NETS["dense"]
    other = tiny_coupled.Dense()
    other.norms[2], other.fc = torch.nn.BatchNorm2d(11), torch.nn.Linear(11, 3)
    with pytest.raises(UserError, match="has 11 channels, the plan says 10"):
        cut(other, tiny.random_decisions(units.groups, 0))


@pytest.mark.parametrize(
    "wrong",
    [{"channels": (0, 0), "span": 1}, {"channels": (3, 4), "offset": 1}, {"channels": (0, 1, 2), "span": 2}],
)
def test_members_with_impossible_channels_are_refused(wrong):
    with pytest.raises(ValueError, match="member a"):
        Member(layer="a", role="consumer", **wrong)
