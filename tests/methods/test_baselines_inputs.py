"""Wanda-sp and FLAP against loops, by hand, and with units in another order."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from coprune.budget.cost import cost_model
from coprune.budget.counts import Budget
from coprune.budget.decide import decide
from coprune.data import LoaderSource
from coprune.groups import find_units
from coprune.methods.base import NoSettings
from coprune.methods.baselines.inputs import standardised
from coprune.methods.registry import METHODS
from coprune.statistics import Calibration, InputMoments, Profile, collect
from tiny_transformers import inputs, transformer


def profile_of(model, x, groups=None):
    groups = groups or find_units(model, x).groups
    source = LoaderSource([(x, torch.arange(len(x["input_ids"])) % 3)], len(x["input_ids"]))
    return Profile(groups, collect(Calibration(model, groups, source, 3), [InputMoments()]))


@pytest.fixture(scope="module")
def llama():
    model, x = transformer("llama_grouped"), inputs("llama_grouped", samples=6)
    return model, x, profile_of(model, x)


def columns(model, x, group):
    """For every unit its columns: pairs of what all real tokens give, ``[M]``, and weights, ``[O]``."""
    (consumer,) = group.of_role("consumer")
    read = []
    layer = model.get_submodule(consumer.layer)
    handle = layer.register_forward_pre_hook(lambda _, i: read.append(i[0].clone()))
    with torch.no_grad():
        model(**x)
    handle.remove()
    rows, weight = read[0][x["attention_mask"].bool()], layer.weight.detach()
    return [
        [(rows[:, u * consumer.span + s], weight[:, u * consumer.span + s]) for s in range(consumer.span)]
        for u in range(group.size)
    ]


def test_wanda_sp_by_loops(llama):
    model, x, profile = llama
    choices = METHODS["wanda_sp"].choose(profile, NoSettings(), 0)
    for choice in choices[:2]:  # heads and neurons of the first layer
        wanted = [
            sum(float(w.abs().sum() * v.square().sum().sqrt()) for v, w in unit)
            for unit in columns(model, x, choice.group)
        ]
        assert choice.keep(1, why="").score == pytest.approx(wanted)
        assert choice.keep(1, why="").kept == (wanted.index(max(wanted)),)


def test_flap_by_loops(llama):
    model, x, profile = llama
    choice = METHODS["flap"].choose(profile, NoSettings(), 0)
    assert [g.kind for g in choice.groups] == ["heads", "neurons"] * 2
    decisions = choice.keep(30, why="")
    for group, decision in list(zip(choice.groups, decisions, strict=True))[:2]:
        raw = [[float(v.var() * w.square().sum()) for v, w in unit] for unit in columns(model, x, group)]
        every = [value for unit in raw for value in unit]
        middle = sum(every) / len(every)
        deviation = (sum((v - middle) ** 2 for v in every) / len(every)) ** 0.5
        wanted = [sum((v - middle) / deviation for v in unit) / len(unit) for unit in raw]
        assert decision.score == pytest.approx(wanted)
    # One threshold over all layers and kinds, but for the best of each group.
    kept, gone = [], []
    for d in decisions:
        best = max(d.score)
        kept += [s for i, s in enumerate(d.score) if i in d.kept and s < best]
        gone += [s for i, s in enumerate(d.score) if i not in d.kept]
    assert sum(len(d.kept) for d in decisions) == 30
    assert min(kept) >= max(gone)


def test_flap_keeps_a_budget_of_macs_and_a_share_of_all_units(llama):
    model, x, profile = llama
    one = {name: tensor[:1] for name, tensor in x.items()}
    cost = cost_model(model, one, profile.groups)
    choice = METHODS["flap"].choose(profile, NoSettings(), 0)
    made = decide(Budget(keep_macs=0.6), cost, choice)
    ratio = cost.ratio({d.name: len(d.kept) for d in made})
    assert 0.55 < ratio <= 0.6
    shares = {len(d.kept) / d.size for d in made}
    assert len(shares) > 1  # layers and kinds differ
    made = decide(Budget(keep_units=0.5), cost, choice)
    assert sum(len(d.kept) for d in made) == round(0.5 * sum(d.size for d in made))


def test_standardised_by_hand():
    assert standardised(torch.tensor([[1.0, 3.0], [5.0, 7.0]]).double()).flatten().tolist() == pytest.approx(
        [-3 / 5**0.5, -1 / 5**0.5, 1 / 5**0.5, 3 / 5**0.5]
    )
    assert standardised(torch.full((3, 1), 2.0)).tolist() == [[0.0]] * 3


@settings(max_examples=10)
@given(order=st.permutations(range(40)))
def test_neurons_in_another_order_are_kept_in_that_order(order):
    model, x = transformer("llama"), inputs("llama", samples=4)
    groups = find_units(model, x).groups
    swapped = copy.deepcopy(model)
    mlp = swapped.model.layers[0].mlp
    with torch.no_grad():
        for layer in (mlp.gate_proj, mlp.up_proj):
            layer.weight.copy_(layer.weight[list(order)])
        mlp.down_proj.weight.copy_(mlp.down_proj.weight[:, list(order)])
    for name in ("wanda_sp", "flap"):
        kept = []
        for network in (model, swapped):
            made = METHODS[name].choose(profile_of(network, x, groups), NoSettings(), 0)
            kept.append(made.keep(40, why="")[1].kept if name == "flap" else made[1].keep(11, why="").kept)
        assert {order[u] for u in kept[1]} == set(kept[0])


def test_channels_have_scores_too():
    net = tiny.network("resnet20")
    groups = find_units(net, torch.zeros(1, 1, 12, 12)).groups
    tensors = collect(Calibration(net, groups, tiny.source(24), 3), [InputMoments()])
    profile = Profile(groups, tensors)
    ranking = METHODS["wanda_sp"].choose(profile, NoSettings(), 0)[0]
    assert len(ranking.keep(2, why="").kept) == 2
    total = sum(g.size for g in groups)
    assert (
        sum(len(d.kept) for d in METHODS["flap"].choose(profile, NoSettings(), 0).keep(total // 2, why=""))
        == total // 2
    )
