"""From one number for the network to a number of units a group."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.budget.allocation import uniform_allocation
from coprune.budget.cost import CostModel, LayerShare, cost_model
from coprune.budget.counts import (
    Budget,
    allowed_counts,
    check_reachable,
    nearest_allowed,
    uniform_counts,
)
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.measure import count_macs, count_params
from coprune.models.names import ModelSource
from coprune.models.registry import build
from coprune.surgery import cut


def real(name, width):
    net = build(ModelSource(f"coprune:{name}", {"in_channels": 1, "width": width}))
    example = torch.zeros(1, 1, 28, 28)
    return cost_model(net, example, find_units(net, example).groups)


@pytest.fixture(scope="module")
def costs():
    """Networks of the size that people prune."""
    return {
        "resnet20": real("resnet20", 16),
        "resnet56": real("resnet56", 16),
        "vgg16_bn": real("vgg16_bn", 32),
    }


NETS = ["resnet20", "resnet56", "vgg16_bn"]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", [0.15, 0.26, 0.5, 0.75, 0.9])
def test_realistic_networks_come_within_two_per_cent_below_the_target(costs, name, target):
    ratio = costs[name].ratio(uniform_allocation(costs[name], target))
    assert target * 0.98 <= ratio <= target


@pytest.mark.parametrize("name", NETS)
@given(target=st.floats(0.2, 1.0))
def test_never_above_the_target_and_nothing_more_would_fit(costs, name, target):
    cost = costs[name]
    counts = uniform_allocation(cost, target)
    assert counts.keys() == cost.sizes.keys()
    assert all(1 <= counts[g] <= n for g, n in cost.sizes.items())
    assert cost.ratio(counts) <= target
    # "as close to the target as one unit allows"
    for g, n in cost.sizes.items():
        assert counts[g] == n or cost.ratio({**counts, g: counts[g] + 1}) > target


@pytest.mark.parametrize("name", NETS)
@given(a=st.floats(0.2, 1.0), b=st.floats(0.2, 1.0))
def test_a_larger_target_never_costs_less_by_more_than_one_unit(costs, name, a, b):
    low, high = sorted((a, b))
    cost = costs[name]
    few, many = (uniform_allocation(cost, t) for t in (low, high))
    # The last units are added one by one where they fit, so that a small step may use the room otherwise.
    unit = max(cost.ratio({**many, g: many[g] + 1}) - cost.ratio(many) for g in cost.sizes)
    assert cost.ratio(few) <= cost.ratio(many) + unit


def test_clearly_larger_targets_keep_more_everywhere(costs):
    for cost in costs.values():
        counts = [uniform_allocation(cost, t) for t in (0.2, 0.4, 0.6, 0.8, 1.0)]
        for few, many in itertools.pairwise(counts):
            assert all(few[g] <= many[g] for g in cost.sizes)


@pytest.mark.parametrize("name", NETS)
def test_the_whole_network_is_a_target_too(costs, name):
    assert uniform_allocation(costs[name], 1.0) == dict(costs[name].sizes)


@pytest.mark.parametrize("name", NETS)
def test_groups_keep_about_the_same_share(costs, name):
    cost = costs[name]
    counts = uniform_allocation(cost, 0.5)
    shares = [counts[g] / n for g, n in cost.sizes.items()]
    assert max(shares) - min(shares) <= 2 / min(cost.sizes.values())


def test_shares_are_in_the_given_proportion(costs):
    cost = costs["resnet20"]
    shares = {g: 0.3 if g.startswith("layer3") else 0.6 for g in cost.sizes}
    counts = uniform_allocation(cost, 0.4, shares=shares)
    assert cost.ratio(counts) <= 0.4
    late = sum(counts[g] for g in counts if g.startswith("layer3")) / (3 * 64)
    early = sum(counts[g] for g in counts if not g.startswith("layer3")) / (3 * 16 + 3 * 32)
    assert late / early == pytest.approx(0.5, abs=0.05)


@given(target=st.floats(0.3, 1.0), seed=st.integers(0, 1000))
def test_any_shares_stay_below_the_target(costs, target, seed):
    cost = costs["resnet20"]
    drawn = torch.rand(len(cost.sizes), generator=torch.Generator().manual_seed(seed)) + 0.01
    counts = uniform_allocation(cost, target, shares=dict(zip(cost.sizes, drawn.tolist(), strict=True)))
    assert cost.ratio(counts) <= target


@pytest.mark.parametrize("name", NETS)
def test_an_unreachable_target_is_refused_with_the_least_possible(costs, name):
    with pytest.raises(UserError, match=r"keep_macs=0\.001 cannot be reached"):
        uniform_allocation(costs[name], 0.001)


def test_a_network_without_groups_can_be_asked_for_all_of_it():
    # Once a bug: min() of no groups is a ValueError with a message about iterables.
    nothing = CostModel((LayerShare("fc", 100, 110),), {})
    assert uniform_allocation(nothing, 1.0) == {}


def test_macs_by_hand():
    # a makes 4 units, b reads them and makes 6, c reads those.
    layers = (
        LayerShare("a", 40, 0, {"a": 1.0}),
        LayerShare("b", 240, 0, {"b": 1.0}, {"a": 1.0}),
        LayerShare("c", 60, 0, {}, {"b": 1.0}),
        LayerShare("rest", 7, 0),
    )
    cost = CostModel(layers, {"a": 4, "b": 6})
    assert cost.total({}) == 347
    assert cost.total({"a": 1, "b": 3}) == 10 + 240 / 4 / 2 + 30 + 7
    assert cost.ratio({"a": 4}) == 1


@given(
    parts=st.lists(st.lists(st.floats(0, 0.5), min_size=4, max_size=4), min_size=1, max_size=5),
    counts=st.tuples(st.integers(1, 8), st.integers(1, 5)),
    more=st.integers(-4, 8),
    quantity=st.sampled_from(["macs", "params"]),
)
def test_the_slope_says_what_another_count_of_one_group_costs(parts, counts, more, quantity):
    # Layers that read and write any part of both groups, the same stream too.
    layers = tuple(
        LayerShare(f"l{i}", 100 + i, 7 * i + 1, {"a": p, "b": q}, {"a": r, "b": s})
        for i, (p, q, r, s) in enumerate(parts)
    )
    cost = CostModel(layers, {"a": 8, "b": 5})
    now = dict(zip("ab", counts, strict=True))
    for group in "ab":
        linear, bend = cost.slope(now, group, quantity)
        then = cost.ratio({**now, group: now[group] + more}, quantity)
        assert then == pytest.approx(cost.ratio(now, quantity) + linear * more + bend * more**2, abs=1e-12)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn", "flattened", "perceptron", "depthwise"])
@given(seed=st.integers(0, 10_000))
def test_macs_are_those_of_the_really_cut_network(traced, name, seed):
    example = torch.zeros(1, 1, 12, 12)
    net, units = traced[name]
    decisions = tiny.random_decisions(units.groups, seed)
    cost = cost_model(net, example, units.groups)
    counts = {d.name: len(d.kept) for d in decisions}
    assert cost.total(counts) == pytest.approx(count_macs(cut(net, decisions), example), abs=1e-6)


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "vgg16_bn", "flattened", "perceptron", "depthwise"])
def test_the_full_cost_is_the_networks(traced, example, name):
    net, units = traced[name]
    cost = cost_model(net, example, units.groups)
    assert cost.total({}) == count_macs(net, example)
    assert cost.ratio({g.name: g.size for g in units.groups}) == 1


@given(share=st.floats(0.001, 1), sizes=st.lists(st.integers(1, 600), min_size=1, max_size=6))
def test_uniform_counts_keep_at_least_one_and_at_most_all(share, sizes):
    named = {f"g{i}": n for i, n in enumerate(sizes)}
    for g, k in uniform_counts(named, share).items():
        assert 1 <= k <= named[g]
        assert abs(k - share * named[g]) <= max(0.5, 1 - share * named[g])


def test_budget_words_and_limits():
    assert Budget().words == "knee"
    assert Budget(keep_macs=0.5, max_drop=1).words == "keep_macs=0.5, max_drop=1"
    for bad in ({"keep_macs": 0}, {"keep_macs": 1.5}, {"keep_units": -1}, {"max_drop": 101}, {"keep": 0.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Budget(**bad)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_bn", "flattened", "perceptron", "depthwise"])
@given(seed=st.integers(0, 10_000))
def test_parameters_are_those_of_the_really_cut_network(traced, name, seed):
    # Once a bug: biases shrank with what their layer reads, and keep_params=0.4 left 40.3 %.
    example = torch.zeros(1, 1, 12, 12)
    net, units = traced[name]
    decisions = tiny.random_decisions(units.groups, seed)
    counts = {d.name: len(d.kept) for d in decisions}
    counted = cost_model(net, example, units.groups).total(counts, "params")
    assert counted == pytest.approx(count_params(cut(net, decisions)), abs=1e-6)


@pytest.mark.parametrize("name", NETS)
@given(target=st.floats(0.2, 1.0))
def test_parameters_never_above_the_target_and_nothing_more_would_fit(costs, name, target):
    cost = costs[name]
    counts = uniform_allocation(cost, target, quantity="params")
    assert cost.ratio(counts, "params") <= target
    for g, n in cost.sizes.items():
        assert counts[g] == n or cost.ratio({**counts, g: counts[g] + 1}, "params") > target


def test_unreachable_parameters_are_refused_by_name(costs):
    with pytest.raises(UserError, match=r"keep_params=0\.001 cannot be reached: .* of the parameters"):
        check_reachable(costs["resnet20"], 0.001, quantity="params")


def test_parameters_by_hand():
    layers = (
        LayerShare("a", 0, 40, {"a": 1.0}),
        LayerShare("b", 0, 60, {}, {"a": 1.0}),
        LayerShare("c", 9, 10),
    )
    cost = CostModel(layers, {"a": 4})
    assert cost.total({"a": 1}, "params") == 10 + 15 + 10
    assert cost.ratio({"a": 1}, "params") == 35 / 110
    assert uniform_allocation(cost, 0.6, quantity="params") == {"a": 2}


@pytest.mark.parametrize(
    ("given", "words", "searched"),
    [
        ({}, "knee", False),
        ({"keep_params": 0.25}, "keep_params=0.25", False),
        ({"latency_ms": 3.5}, "latency_ms=3.5", True),
        ({"max_drop": 0}, "max_drop=0", True),
    ],
)
def test_a_budget_says_what_it_is(given, words, searched):
    budget = Budget(**given)
    assert budget.words == words
    assert budget.searched == searched
    assert budget.empty == (not given)


@pytest.mark.parametrize(
    "bad", [{"keep_params": 0}, {"keep_params": 1.1}, {"latency_ms": 0}, {"latency_ms": -2}]
)
def test_new_limits(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Budget(**bad)


def test_allowed_counts_are_multiples_or_all():
    assert allowed_counts(20, 8) == [8, 16, 20]
    assert allowed_counts(16, 8) == [8, 16]
    assert allowed_counts(5, 8) == [1, 2, 3, 4, 5]
    assert nearest_allowed(12, 20, 8) == 16  # of two equally near the larger
    assert nearest_allowed(11, 20, 8) == 8
    assert uniform_counts({"a": 20, "b": 5}, 0.5, round_to=8) == {"a": 8, "b": 2}


@pytest.mark.parametrize("name", NETS)
@given(target=st.floats(0.4, 1.0), step=st.sampled_from([2, 4, 8]))
def test_rounded_counts_stay_below_the_target_and_nothing_more_would_fit(costs, name, target, step):
    cost = costs[name]
    counts = uniform_allocation(cost, target, round_to=step)
    assert cost.ratio(counts) <= target
    for g, n in cost.sizes.items():
        ways = allowed_counts(n, step)
        assert counts[g] in ways
        if counts[g] < n:
            assert cost.ratio({**counts, g: ways[ways.index(counts[g]) + 1]}) > target


def test_a_budget_out_of_reach_of_rounded_counts_says_what_the_least_is(costs):
    with pytest.raises(UserError, match=r"keep_macs=0\.1 cannot be reached: 16 units in every group"):
        uniform_allocation(costs["resnet20"], 0.1, round_to=16)
