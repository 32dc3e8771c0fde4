"""The rivals: each keeps what its formula says, for any number of units."""

import itertools
from dataclasses import replace

import pytest
import torch

import coprune
import tiny
from coprune.groups import find_units
from coprune.methods.base import NoSettings
from coprune.methods.registry import METHODS
from coprune.statistics import Calibration, Profile, collect

RIVALS = ["random", "magnitude", "magnitude_l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian"]


@pytest.fixture(scope="module")
def profiled(traced, example):
    """Name → a profile with all that any rival reads."""
    found = {}
    for name in ("resnet20", "perceptron"):
        net, units = traced[name]
        needs = {s.key: s for m in RIVALS for s in METHODS[m].needs(NoSettings())}
        tensors = collect(Calibration(net, units.groups, tiny.source(30), 3), needs.values())
        found[name] = Profile(units.groups, tensors)
    return found


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("name", ["resnet20", "perceptron"])
def test_every_rival_keeps_k_units_of_every_group(profiled, rival, name):
    profile = profiled[name]
    choices = METHODS[rival].choose(profile, NoSettings(), 0)
    assert [c.group.name for c in choices] == [g.name for g in profile.groups]
    for choice in choices:
        assert choice.knee is None
        for k in range(1, choice.group.size + 1):
            decision = choice.keep(k, why="test")
            whole = rival == "bn_scale" and name == "perceptron"  # no batch norm to read a scale from
            assert len(decision.kept) == (choice.group.size if whole else k)


@pytest.mark.parametrize("rival", RIVALS)
def test_more_units_include_the_fewer(profiled, rival):
    for choice in METHODS[rival].choose(profiled["resnet20"], NoSettings(), 0):
        kept = [set(choice.keep(k, why="").kept) for k in range(1, choice.group.size + 1)]
        assert all(a < b for a, b in itertools.pairwise(kept))


@pytest.mark.parametrize("rival", RIVALS[1:])
def test_a_rival_keeps_what_torch_pruning_scores_highest(profiled, rival):
    profile = profiled["resnet20"]
    for choice in METHODS[rival].choose(profile, NoSettings(), 0):
        values = profile.tensors[f"importance-{rival}"][choice.group.name]
        decision = choice.keep(2, why="")
        assert set(decision.kept) == set(values.topk(2).indices.tolist())
        assert decision.score == tuple(values.tolist())


def test_magnitude_counts_filter_batch_norm_and_next_layer(traced, profiled):
    net, _ = traced["resnet20"]
    for choice in METHODS["magnitude"].choose(profiled["resnet20"], NoSettings(), 0):
        block = net.get_submodule(choice.group.name.removesuffix(".conv1"))
        norms = (
            block.conv1.weight.abs().sum((1, 2, 3))
            + block.bn1.weight.abs()
            + block.conv2.weight.abs().sum((0, 2, 3))
        )
        assert set(choice.keep(2, why="").kept) == set(norms.topk(2).indices.tolist())


def test_fpgm_drops_a_filter_in_the_middle_of_the_others():
    # Three filters on a line: the middle one is replaceable, though not the smallest.
    group = replace(tiny.group(3), members=tiny.group(3).of_role("producer"))
    net = torch.nn.Sequential()
    net.add_module("conv", torch.nn.Conv2d(1, 3, 1, bias=False))
    with torch.no_grad():
        net.conv.weight.copy_(torch.tensor([4.0, 5.0, 6.0]).view(3, 1, 1, 1))
    tensors = collect(Calibration(net, (group,), tiny.source(3), 3), METHODS["fpgm"].needs(NoSettings()))
    choice = METHODS["fpgm"].choose(Profile((group,), tensors), NoSettings(), 0)[0]
    assert choice.keep(2, why="").kept == (0, 2)


@pytest.mark.parametrize("rival", ["taylor", "hessian"])
def test_gradients_drop_a_unit_that_nobody_listens_to(rival):
    net = tiny.randomise(tiny.Flattened())
    with torch.no_grad():
        net.fc1.weight.view(10, 6, 4)[:, 3] = 0  # unit 3 of conv2 spans four inputs
        net.bn.bias.fill_(5)  # all units alive, so that no other one has no effect
    groups = find_units(net, torch.zeros(1, 1, 12, 12)).groups
    tensors = collect(Calibration(net, groups, tiny.source(12), 3), METHODS[rival].needs(NoSettings()))
    choices = METHODS[rival].choose(Profile(groups, tensors), NoSettings(), 0)
    conv = next(c for c in choices if c.group.name == "conv2")
    assert conv.keep(5, why="").kept == (0, 1, 2, 4, 5)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if "inner" in method.units])
def test_every_method_of_the_registry_prunes_a_model(method, tmp_path):
    net = tiny.randomise(tiny.Flattened())
    batches, before = list(tiny.source(30).batches(10)), tiny.state_of(net)
    outcome = tiny.prune(net, train=batches, eval=batches, method=method, keep_units=0.5, seed=1)
    assert tiny.same_state(before, tiny.state_of(net))
    kept = {g.name: len(g.kept) for g in outcome.plan.groups}
    # fc1 has no batch norm to read a scale from, and stays whole.
    assert kept == {"conv2": 3, "fc1": 10 if method == "bn_scale" else 5}
    assert outcome.model(batches[0][0]).shape == (10, 3)
    folder = outcome.save(tmp_path / "run")
    assert coprune.Plan.load(folder / "plan.json") == outcome.plan


def test_random_depends_on_seed_and_group_only(profiled):
    profile = profiled["resnet20"]

    def kept(seed, groups=profile.groups):
        part = Profile(groups, {})
        return {
            c.group.name: c.keep(3, why="").kept for c in METHODS["random"].choose(part, NoSettings(), seed)
        }

    torch.manual_seed(1)
    first = kept(0)
    torch.manual_seed(2)
    assert kept(0) == first
    assert any(kept(seed) != first for seed in range(1, 4))
    # A group's lot does not change when another group is left out.
    assert kept(0, profile.groups[4:]) == {g.name: first[g.name] for g in profile.groups[4:]}
    # Groups of one size do not share one lot.
    assert len({first[g.name] for g in profile.groups if g.size == 16}) > 1
