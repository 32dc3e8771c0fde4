"""Importances are what Torch-Pruning gives when it is called by hand, and leave no trace."""

import copy
import json
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp

import tiny
from coprune.data import ArraySource, LoaderSource
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.statistics import Calibration, ClassMoments, Importance, Profile, collect
from coprune.statistics.torch_pruning_scores import HESSIAN_SAMPLES, ImportanceKind

KINDS = get_args(ImportanceKind)
WITH_GRADIENTS = ("taylor", "hessian")
NETS = ["resnet20", "flattened", "perceptron"]
SAMPLES = 24


def importance(net, groups, kind, source=None, **options):
    source = source or tiny.source(SAMPLES)
    found = collect(Calibration(net, groups, source, 3, **options), [Importance(kind)])
    return found[f"importance-{kind}"]


def by_hand(net, group, kind, source):
    """What a user of Torch-Pruning writes, after its documentation."""
    net = copy.deepcopy(net)
    x, y = next(source.batches(len(source)))
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=x[:1])
    root = net.get_submodule(group.name)
    conv = isinstance(root, torch.nn.Conv2d)
    prune = tp.prune_conv_out_channels if conv else tp.prune_linear_out_channels
    net.zero_grad()
    if kind == "taylor":
        F.cross_entropy(net(x), y).backward()
    if kind == "hessian":
        squares = dict.fromkeys(net.parameters(), 0)
        for loss in F.cross_entropy(net(x), y, reduction="none"):
            net.zero_grad()
            loss.backward(retain_graph=True)
            squares = {p: total + p.grad**2 for p, total in squares.items()}
        for parameter, total in squares.items():
            parameter.grad = total / len(y)
    scorer = {
        "magnitude": tp.importance.GroupMagnitudeImportance(p=1),
        "magnitude_l2": tp.importance.GroupMagnitudeImportance(p=2),
        "bn_scale": tp.importance.BNScaleImportance(),
        "fpgm": tp.importance.FPGMImportance(),
        "lamp": tp.importance.LAMPImportance(),
        "taylor": tp.importance.GroupTaylorImportance(),
        "hessian": tp.importance.GroupHessianImportance(),
    }[kind]
    return scorer(graph.get_pruning_group(root, prune, list(range(group.size))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", NETS)
def test_importances_are_those_of_torch_pruning(traced, which, kind):
    net, units = traced[which]
    source = tiny.source(SAMPLES)
    found = importance(net, units.groups, kind, source, batch_size=7)
    assert list(found) == [g.name for g in units.groups]
    for group in units.groups:
        wanted = by_hand(net, group, kind, source)
        values = found[group.name]
        assert values.dtype == torch.float64
        if wanted is None:  # a batch-norm scale without a batch norm
            assert kind == "bn_scale"
            assert not group.of_role("carrier")
            assert len(values) == 0
            continue
        assert values.shape == (group.size,)
        assert len(values.unique()) > 1
        if kind in WITH_GRADIENTS:
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(values.float(), wanted)


def members_by_hand(net, group, power):
    """Σ |w|ᵖ of each member of a group for every unit, ``[members, U]``, from the published layout."""
    rows = []
    for member in group.members:
        weight = net.get_submodule(member.layer).weight.detach().double()
        if member.role == "consumer":  # unit u owns the inputs u · span … (u + 1) · span − 1
            weight = weight.transpose(0, 1).reshape(group.size, -1)
        rows.append(weight.reshape(group.size, -1).abs().pow(power).sum(1))
    return torch.stack(rows)


@pytest.mark.parametrize(("kind", "power"), [("magnitude", 1), ("magnitude_l2", 2)])
@pytest.mark.parametrize("which", NETS)
def test_a_magnitude_is_the_mean_over_the_members_of_a_group(traced, which, kind, power):
    net, units = traced[which]
    found = importance(net, units.groups, kind)
    for group in units.groups:
        rows = members_by_hand(net, group, power)
        wanted = rows.mean(0)
        np.testing.assert_allclose(found[group.name], wanted / wanted.mean(), rtol=1e-5)


def test_bn_scale_is_the_size_of_gamma():
    net = tiny.network("resnet20")
    with torch.no_grad():
        net.layer1[0].bn1.weight.copy_(torch.tensor([-2.0, 1.0, 0.5, -0.5]))
    groups = find_units(net, torch.zeros(1, 1, 12, 12)).groups
    assert importance(net, groups, "bn_scale")["layer1.0.conv1"].tolist() == [2.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
@pytest.mark.parametrize("which", NETS)
def test_the_size_of_a_batch_does_not_matter(traced, which, kind):
    net, units = traced[which]
    once = importance(net, units.groups, kind, batch_size=SAMPLES)
    for batch_size in (1, 5, 23):
        again = importance(net, units.groups, kind, batch_size=batch_size)
        for name, values in once.items():
            np.testing.assert_allclose(again[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_every_sample_counts(traced, kind):
    # accumulate_grad of Torch-Pruning 1.6.1 forgets all samples but the last.
    net, units = traced["flattened"]
    whole = tiny.source(SAMPLES)
    last = whole.take(torch.tensor([SAMPLES - 1]))
    a, b = (importance(net, units.groups, kind, source) for source in (whole, last))
    assert all(not torch.allclose(a[name], b[name], rtol=0.01) for name in a)


def test_hessian_reads_samples_spread_over_all_of_them(traced):
    net, units = traced["perceptron"]
    many = tiny.source(2 * HESSIAN_SAMPLES + 3)
    count = len(many)
    chosen = many.take(torch.arange(HESSIAN_SAMPLES) * count // HESSIAN_SAMPLES)
    a, b = (importance(net, units.groups, "hessian", source, batch_size=100) for source in (many, chosen))
    assert tiny.same_state(a, b)


def test_a_lamp_ranks_as_the_l2_magnitude_does(traced):
    net, units = traced["resnet20"]
    lamp, norm = (importance(net, units.groups, kind) for kind in ("lamp", "magnitude_l2"))
    assert all(torch.equal(lamp[name].argsort(), norm[name].argsort()) for name in lamp)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_it_was(kind):
    net = tiny.randomise(tiny.Flattened()).double()
    groups = find_units(net, torch.zeros(1, 1, 12, 12, dtype=torch.float64)).groups
    net.train()
    net.bn.eval()
    net.conv1.weight.requires_grad_(False)
    net.fc1.weight.grad = torch.full_like(net.fc1.weight, 3.0)
    before = tiny.state_of(net)
    importance(net, groups, kind, tiny.source(SAMPLES, kind=tiny.DoubleSource))
    assert tiny.same_state(before, tiny.state_of(net))
    assert {n for n, p in net.named_parameters() if p.grad is not None} == {"fc1.weight"}
    assert bool((net.fc1.weight.grad == 3).all())
    assert {n for n, p in net.named_parameters() if not p.requires_grad} == {"conv1.weight"}
    assert {n for n, m in net.named_modules() if not m.training} == {"bn"}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_a_frozen_model_has_the_same_importances(kind):
    net = tiny.randomise(tiny.Flattened())
    groups = find_units(net, torch.zeros(1, 1, 12, 12)).groups
    free = importance(net, groups, kind)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        assert tiny.same_state(free, importance(net, groups, kind))


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_a_dead_layer_has_importance_0_and_not_nan(kind):
    net = tiny.randomise(tiny.Flattened())
    with torch.no_grad():
        net.fc2.weight.zero_()
    groups = find_units(net, torch.zeros(1, 1, 12, 12)).groups
    found = importance(net, groups, kind)
    assert found["fc1"].tolist() == [0.0] * 10
    json.dumps([v.tolist() for v in found.values()], allow_nan=False)


def test_what_is_gathered_beside_it_does_not_matter(traced):
    net, units = traced["flattened"]
    wanted = [ClassMoments(), *map(Importance, KINDS)]
    together = collect(Calibration(net, units.groups, tiny.source(SAMPLES), 3), wanted)
    assert set(together) == {s.key for s in wanted}
    for kind in KINDS:
        assert tiny.same_state(together[f"importance-{kind}"], importance(net, units.groups, kind))
    profile = Profile(units.groups, together)
    group = units.groups[0]
    assert profile.of(Importance("lamp"), group) is together["importance-lamp"][group.name]


def test_without_gradients_one_sample_is_read(traced):
    net, units = traced["perceptron"]

    class OneBatch(ArraySource):
        def batches(self, batch_size):
            assert batch_size == 1
            yield from list(super().batches(1))[:1]

    assert importance(net, units.groups, "magnitude", tiny.source(SAMPLES, kind=OneBatch))


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_labels_outside_the_models_classes_are_refused(traced, kind):
    net, units = traced["perceptron"]
    x, y = next(tiny.source(6, classes=4).batches(6))
    with pytest.raises(UserError, match="outside the model's 3 classes"):
        collect(Calibration(net, units.groups, LoaderSource([(x, y)], 6), 4), [Importance(kind)])
