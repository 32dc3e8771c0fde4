"""Coupled groups from end to end: every method, the schedule layer by layer, and what recovery is worth."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import coprune as package
import tiny
import tiny_coupled
from coprune.api import from_loaders
from coprune.budget.counts import Budget
from coprune.data import load_data
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.methods.registry import METHODS
from coprune.pipeline.prune import prune_model
from coprune.pipeline.settings import PruneSettings, kinds_of
from coprune.surgery import apply_plan

CHANNEL_METHODS = sorted(name for name, m in METHODS.items() if "coupled" in m.units)
IMAGE = torch.zeros(1, 1, 12, 12)


def loader(n: int = 60, *, seed: int = 0) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, 12, 12, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), batch_size=20)


def pruned(net: nn.Module, *, keep_macs: float | None = 0.5, keep_units: float | None = None, **options):
    """What ``coprune.prune`` hands back, but without the seconds of timing the models."""
    data = from_loaders(train=loader(), heldout=loader(seed=1), calibration=None, calibration_samples=60)
    asked = {"units": ("inner", "coupled"), "recovery": "none", "latency_batches": (), **options}
    budget = Budget(keep_macs=keep_macs, keep_units=keep_units)
    return prune_model(net, data, PruneSettings(budget=budget, force=True, **asked))


def test_every_method_for_channels_can_choose_coupled_ones():
    assert {"complementary", "cosep", "random", "magnitude", "bn_scale", "taylor"} <= set(CHANNEL_METHODS)


@pytest.mark.parametrize("method", CHANNEL_METHODS)
def test_every_method_prunes_streams(method):
    net = tiny.network("resnet20")
    outcome = pruned(net, method=method, recovery="auto")
    base, last = outcome.result.stages[0], outcome.result.stages[-1]
    assert last.macs <= 0.5 * base.macs
    streams = [g for g in outcome.plan.groups if len([m for m in g.members if m.role == "producer"]) > 1]
    assert [g.name for g in streams] == ["conv1", "layer2.0.downsample.0", "layer3.0.downsample.0"]
    if method != "complementary":  # which may find that the streams are worth more than all the rest
        assert all(len(g.kept) < g.size for g in streams)
    x = torch.rand(2, 1, 12, 12)
    assert outcome.model(x).isfinite().all()


@pytest.mark.parametrize(
    "name", ["dense", "flat", "grouped", "multiplied", "normed", "group_normed", "plain"]
)
@pytest.mark.parametrize("method", ["complementary", "cosep", "magnitude", "fpgm"])
def test_methods_take_every_form_of_coupling(name, method):
    net = tiny_coupled.networks()[name]
    outcome = pruned(net, method=method, keep_macs=None, keep_units=0.5, recovery="auto")
    assert any(len(g.kept) < g.size for g in outcome.plan.groups)
    assert outcome.model(torch.rand(2, 1, 12, 12)).isfinite().all()


def test_the_plan_made_layer_by_layer_is_one_of_the_full_network():
    # Offsets behind a concatenation move with every layer that was cut before.
    net = tiny_coupled.networks()["dense"]
    outcome = pruned(
        net, method="cosep", keep_macs=None, keep_units=0.5, schedule="layerwise", allocation="auto"
    )
    again = apply_plan(net, outcome.plan, IMAGE)
    assert repr(again) == repr(outcome.model)
    assert {m.offset for g in outcome.plan.groups for m in g.members if m.layer == "fc"} == {0, 4, 7}


def test_least_squares_brings_back_a_trained_network_whose_streams_were_thinned(base, digits):
    settings = PruneSettings(
        budget=Budget(keep_macs=0.3), method="magnitude", units=("inner", "coupled"), latency_batches=()
    )
    outcome = prune_model(package.load(base), load_data(digits, calibration=100, seed=0), settings)
    assert all(len(g.kept) < g.size for g in outcome.plan.groups)
    cut, recovered = outcome.result.stage("pruned"), outcome.result.stage("recovered")
    assert recovered.value > cut.value + 0.2
    assert recovered.value > 0.8


@pytest.mark.parametrize("name", ["dense", "stream", "normed"])
def test_least_squares_brings_the_prediction_back(name):
    net = tiny_coupled.networks()[name]
    outcome = pruned(net, method="magnitude", keep_macs=0.6)
    better = package.recover_model(
        outcome.model, teacher=net, calibration=loader(), plan=outcome.plan, calibration_samples=60
    )
    x = next(iter(loader(seed=2)))[0]
    with torch.no_grad():
        wanted = net(x).log_softmax(1)
        before, after = (
            float(F.kl_div(m(x).log_softmax(1), wanted, log_target=True, reduction="batchmean"))
            for m in (outcome.model, better)
        )
    assert after < 0.5 * before


def test_a_thinned_stream_without_its_plan_is_refused():
    net = tiny.network("resnet20")
    outcome = pruned(net, method="magnitude")
    with pytest.raises(UserError, match=r"layer 'conv1' has \d of 4 channels that other layers share"):
        package.recover_model(outcome.model, teacher=net, calibration=loader())


def test_streams_stay_unless_they_are_asked_for():
    net = tiny.network("resnet20")
    plain, inner = (pruned(net, method="magnitude", units=units) for units in ((), ("inner",)))
    assert [g.name for g in plain.plan.groups] == [g.name for g in find_units(net, IMAGE).groups]
    assert plain.plan.groups == inner.plan.groups
    for name, method in METHODS.items():
        assert "coupled" not in kinds_of(PruneSettings(method=name), method)


def test_a_network_of_coupled_channels_alone_names_the_way_out():
    with pytest.raises(
        UserError, match=r"nothing in this Dense can be pruned.*units=\('inner', 'coupled'\) removes"
    ):
        pruned(tiny_coupled.networks()["dense"], units=("inner",))
    outcome = pruned(tiny_coupled.networks()["dense"], units=())
    assert {g.kind for g in outcome.plan.groups} == {"coupled"}


def test_only_the_named_groups_lose_channels():
    net = tiny.network("resnet20")
    outcome = pruned(net, method="magnitude", keep_macs=None, keep_units=0.5, only=("layer2.1.conv1",))
    assert [g.name for g in outcome.plan.groups] == ["layer2.1.conv1"]
    with pytest.raises(UserError, match=r"only=\('layer9',\): no such layer"):
        pruned(net, method="magnitude", only=("layer9",))


@pytest.mark.parametrize("method", ["complementary", "magnitude", "cosep"])
def test_kept_counts_are_multiples_where_groups_are_large_enough(method):
    net = tiny.network("resnet20", width=8)
    outcome = pruned(net, method=method, keep_macs=0.6, round_to=4)
    for group in outcome.plan.groups:
        assert len(group.kept) % 4 == 0
    assert outcome.result.stages[1].macs <= 0.6 * outcome.result.stages[0].macs
    without = pruned(net, method=method, keep_macs=0.6)
    assert any(len(g.kept) % 4 for g in without.plan.groups)


def test_the_network_is_left_as_it_is():
    net = tiny.network("resnet20")
    before = tiny.state_of(net)
    copied = copy.deepcopy(net)
    pruned(net, method="complementary")
    assert tiny.same_state(before, tiny.state_of(net))
    assert repr(copied) == repr(net)
