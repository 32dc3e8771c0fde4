"""The rivals over attention heads: each keeps what its formula says, over all layers."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from coprune.errors import UserError
from coprune.groups import ChannelGroup
from coprune.methods.base import NoSettings
from coprune.methods.baselines.heads import HeadMagnitude
from coprune.methods.cahp import CAHP, CAHPSettings
from coprune.methods.cahp.method import ClusterSettings
from coprune.methods.registry import METHODS, method_settings
from coprune.plan import Member
from coprune.statistics import Calibration, Profile, collect
from tiny_heads import CLASSES, bert, bert_groups, sentences

RIVALS = ["michel", "medoid", "last_layers", "head_magnitude"]
GRID = {"medoid": {"grid": 4}}


def settings_of(name):
    return method_settings(METHODS[name], GRID.get(name, {}))


def profile_of(model, source, *methods):
    needs = {s.key: s for name, settings in methods for s in METHODS[name].needs(settings)}
    groups = bert_groups(model)
    tensors = collect(Calibration(model, groups, source, CLASSES), needs.values())
    return Profile(groups, tensors)


@pytest.fixture(scope="module")
def model():
    return bert(layers=3)


@pytest.fixture(scope="module")
def profile(model):
    chosen = [(name, settings_of(name)) for name in RIVALS]
    return profile_of(model, sentences(60, longest=8), *chosen, ("cahp", CAHPSettings(grid=4)))


@pytest.mark.parametrize("rival", RIVALS)
def test_every_rival_keeps_k_heads_and_one_a_layer(profile, rival):
    choice = METHODS[rival].choose(profile, settings_of(rival), 0)
    assert METHODS[rival].units == ("heads",)
    assert [g.name for g in choice.groups] == [g.name for g in profile.groups if g.kind == "heads"]
    for k in range(1, 13):
        decisions = choice.keep(k, why="test")
        total = sum(len(d.kept) for d in decisions)
        guarded = sum("so the layer keeps" in d.reason for d in decisions)
        assert total == (k + guarded if rival == "medoid" else max(k, 3))
        assert all(d.reason.endswith("; test") for d in decisions)


@pytest.mark.parametrize("rival", ["michel", "last_layers", "head_magnitude"])
def test_more_heads_include_the_fewer(profile, rival):
    choice = METHODS[rival].choose(profile, settings_of(rival), 0)
    assert choice.knee is None
    found = [{(d.name, u) for d in choice.keep(k, why="") for u in d.kept} for k in range(3, 13)]
    assert all(a < b for a, b in itertools.pairwise(found))


def test_michel_is_context_times_gradient_a_sample_normalised_in_each_layer():
    """The paper's formula, read off context and its gradient sentence by sentence."""
    model, source = bert(layers=2).double(), sentences(9)
    total = torch.zeros(2, 4, dtype=torch.float64)
    contexts = []
    hooks = [
        layer.attention.output.dense.register_forward_pre_hook(lambda m, x: contexts.append(x[0]))
        for layer in model.bert.encoder.layer
    ]
    for inputs, labels in source.batches(1):
        contexts.clear()
        loss = F.cross_entropy(model(**inputs).logits, labels)
        for i, (context, gradient) in enumerate(
            zip(contexts, torch.autograd.grad(loss, contexts), strict=True)
        ):
            total[i] += (context * gradient).detach().unflatten(2, (4, 8)).sum((0, 1, 3)).abs()
    for hook in hooks:
        hook.remove()
    expected = total / total.norm(dim=1, keepdim=True)
    settings = settings_of("michel")
    choice = METHODS["michel"].choose(profile_of(model, source, ("michel", settings)), settings, 0)
    torch.testing.assert_close(torch.stack(choice.scores), expected, rtol=1e-6, atol=1e-9)


def test_head_magnitude_is_the_norm_of_the_slice_of_the_output_projection(model, profile):
    choice = METHODS["head_magnitude"].choose(profile, NoSettings(), 0)
    for layer, score in zip(model.bert.encoder.layer, choice.scores, strict=True):
        weight = layer.attention.output.dense.weight.detach().double()
        for h in range(4):
            torch.testing.assert_close(score[h], weight[:, 8 * h : 8 * h + 8].norm())


def test_head_magnitude_adds_up_over_layers_that_lose_the_same_heads():
    layers = torch.nn.ModuleList([torch.nn.Linear(6, 4), torch.nn.Linear(8, 5)])
    members = (Member(layer="0", role="consumer", span=3), Member(layer="1", role="consumer", span=4))
    group = ChannelGroup("0", 2, members, kind="heads")
    found = HeadMagnitude().collect(Calibration(layers, (group,), sentences(2), 2))["0"]
    for h in range(2):
        parts = layers[0].weight[:, 3 * h : 3 * h + 3], layers[1].weight[:, 4 * h : 4 * h + 4]
        both = torch.cat([p.detach().double().flatten() for p in parts])
        torch.testing.assert_close(found[h], both.norm())


def test_head_magnitude_reads_transposed_weights():
    from transformers.pytorch_utils import Conv1D

    layer = torch.nn.Sequential(Conv1D(5, 6))  # 6 inputs, two heads of three channels
    group = ChannelGroup("0", 2, (Member(layer="0", role="consumer", span=3),), kind="heads")
    found = HeadMagnitude().collect(Calibration(layer, (group,), sentences(2), 2))
    weight = layer[0].weight.detach().double()
    torch.testing.assert_close(found["0"], torch.stack([weight[:3].norm(), weight[3:].norm()]))


def test_last_layers_go_first_down_to_one_head(profile):
    choice = METHODS["last_layers"].choose(profile, NoSettings(), 0)
    assert [len(d.kept) for d in choice.keep(9, why="")] == [4, 4, 1]
    assert [len(d.kept) for d in choice.keep(7, why="")] == [4, 2, 1]
    assert [d.kept for d in choice.keep(4, why="")] == [(0, 1), (0,), (0,)]


def test_medoid_has_the_clusters_of_cahp_and_keeps_their_centres(profile):
    cahp = CAHP.choose(profile, CAHPSettings(grid=4), 5)
    medoid = METHODS["medoid"].choose(profile, ClusterSettings(grid=4), 5)
    assert medoid.knee == cahp.knee
    for k in range(2, 13):
        for ours, theirs in zip(medoid.keep(k, why=""), cahp.keep(k, why=""), strict=True):
            assert ours.clusters == theirs.clusters
            assert ours.medoids == theirs.medoids
            assert ours.kept == (ours.medoids or ours.kept)
            assert len(ours.kept) == max(1, len(ours.medoids))


@pytest.mark.parametrize("rival", RIVALS)
def test_a_model_without_heads_is_refused(rival):
    group = ChannelGroup("conv", 4, (Member(layer="conv", role="producer"),), "inner")
    with pytest.raises(UserError, match=f"'{rival}' prunes attention heads"):
        METHODS[rival].choose(Profile((group,), {}), settings_of(rival), 0)
