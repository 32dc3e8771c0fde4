"""The walk: what a removed twin said comes back exactly, nothing else changes, no label is read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from coprune.data import ArraySource
from coprune.errors import UserError
from coprune.groups import ChannelGroup, find_units
from coprune.plan import GroupDecision
from coprune.recovery import Pair, kept_outputs, least_squares, matched_outputs
from coprune.surgery import cut
from tiny import Depthwise, Flattened, Perceptron, network, randomise, source

SAMPLES = source(160)
X = next(iter(SAMPLES.batches(64)))[0]


def decision(group, kept) -> GroupDecision:
    return GroupDecision(
        name=group.name, members=group.members, size=group.size, kept=tuple(sorted(kept)), reason="test"
    )


def made(name: str) -> nn.Module:
    nets = {"flattened": Flattened, "perceptron": Perceptron, "depthwise": Depthwise}
    model = randomise(nets[name]()) if name in nets else network(name)
    if name == "depthwise":
        with torch.no_grad():  # or its rectifiers let nothing through
            for layer in (model.stem, model.expand, model.spatial, model.project):
                layer.weight.abs_()
                layer.bias.abs_()
    return model


def with_twin(model: nn.Module, group) -> None:
    """Make unit 1 of a group say what unit 0 says: everything that makes or carries it is copied."""
    with torch.no_grad():
        for member in group.members:
            if member.role != "consumer":
                layer = model.get_submodule(member.layer)
                tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
                for tensor in tensors:
                    if tensor.ndim and len(tensor) == group.size:
                        tensor[1] = tensor[0]


@torch.no_grad()
def outputs(model: nn.Module) -> Tensor:
    return model.eval()(X)


NETS = ["resnet20", "vgg16_bn", "flattened", "perceptron", "depthwise"]


def without_twin(name: str) -> tuple[nn.Module, ChannelGroup, tuple[GroupDecision, ...], nn.Module, Tensor]:
    """A network with twins, their group, the cut that takes one, what is left, and how far off that is."""
    model = made(name)
    group = find_units(model, X[:1]).groups[0]
    with_twin(model, group)
    decisions = (decision(group, [u for u in range(group.size) if u != 1]),)
    pruned = cut(model, decisions)
    return model, group, decisions, pruned, (outputs(pruned) - outputs(model)).abs().max()


@pytest.mark.parametrize("name", NETS)
def test_a_twin_that_goes_is_made_up_for(name):
    model, _, decisions, pruned, worse = without_twin(name)
    done = least_squares(Pair(pruned, model, kept_outputs(model, decisions)), SAMPLES)
    better = (outputs(pruned) - outputs(model)).abs().max()
    assert worse > 0
    assert better < 0.02 * worse
    assert any(layer.changed for layer in done)


@pytest.mark.parametrize("name", NETS)
def test_a_model_that_lost_nothing_stays_as_it_is(name):
    model = made(name)
    twin = copy.deepcopy(model)
    done = least_squares(Pair(twin, model, {}), SAMPLES)
    torch.testing.assert_close(outputs(twin), outputs(model), atol=1e-4, rtol=1e-4)
    assert all(layer.before < 1e-8 for layer in done)


def halved(model: nn.Module) -> tuple[GroupDecision, ...]:
    return tuple(decision(g, range(max(1, g.size // 2))) for g in find_units(model, X[:1]).groups)


@pytest.mark.parametrize("name", NETS)
def test_half_a_network_comes_nearer_to_the_whole(name):
    model = made(name)
    decisions = halved(model)
    pruned = cut(model, decisions)
    before = (outputs(pruned) - outputs(model)).square().mean()
    done = least_squares(Pair(pruned, model, kept_outputs(model, decisions)), SAMPLES)
    after = (outputs(pruned) - outputs(model)).square().mean()
    assert after < before
    assert bool(torch.isfinite(outputs(pruned)).all())
    assert all(layer.after < layer.before for layer in done if layer.changed)


def test_no_label_is_read_and_the_same_seed_gives_the_same_weights():
    model = made("resnet20")
    decisions = halved(model)
    kept = kept_outputs(model, decisions)
    shuffled = ArraySource(SAMPLES.images, SAMPLES.labels.flip(0), SAMPLES.normalisation)
    found = []
    for samples, seed in ((SAMPLES, 0), (shuffled, 0), (SAMPLES, 1)):
        pruned = cut(model, decisions)
        least_squares(Pair(pruned, model, kept), samples, seed=seed, rows=800)
        found.append(outputs(pruned))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_batch_norm_that_scales_by_nothing_does_no_harm():
    model = made("resnet20")
    with torch.no_grad():
        model.layer1[0].bn2.weight[1] = 0.0
    decisions = halved(model)
    pruned = cut(model, decisions)
    least_squares(Pair(pruned, model, kept_outputs(model, decisions)), SAMPLES)
    assert bool(torch.isfinite(outputs(pruned)).all())


def test_little_memory_takes_fewer_samples_and_still_works(monkeypatch):
    import coprune.recovery.sequential_least_squares as sequential

    model = made("vgg16_bn")
    decisions = halved(model)
    seen = []
    visit = sequential.walk_layers
    monkeypatch.setattr(
        sequential, "walk_layers", lambda m, s, x, v, **k: (seen.append(len(x)), visit(m, s, x, v, **k))[1]
    )
    pruned = cut(model, decisions)
    least_squares(Pair(pruned, model, kept_outputs(model, decisions)), SAMPLES, memory=1)
    assert max(seen) == 16
    assert bool(torch.isfinite(outputs(pruned)).all())


def test_other_networks_and_unknown_cuts_are_refused():
    model = made("resnet20")
    decisions = halved(model)
    pruned = cut(model, decisions)
    with pytest.raises(UserError, match="not the same network"):
        least_squares(Pair(pruned, made("vgg16_bn"), {}), SAMPLES)
    with pytest.raises(UserError, match="not known which"):
        least_squares(Pair(pruned, model, {}), SAMPLES)


def test_kept_outputs_are_the_filters_that_are_still_there():
    model = made("depthwise")
    group = find_units(model, X[:1]).groups[0]
    decisions = (decision(group, [0, 2, 5]),)
    pruned = cut(model, decisions)
    kept = kept_outputs(model, decisions)
    assert {name: index.tolist() for name, index in kept.items()} == {
        "expand": [0, 2, 5],
        "spatial": [0, 2, 5],
    }
    for name, index in kept.items():
        assert torch.equal(pruned.get_submodule(name).weight, model.get_submodule(name).weight[index])


@pytest.mark.parametrize("name", ["resnet20", "perceptron"])
def test_without_a_plan_channels_are_told_by_their_behaviour(name):
    model = made(name)
    groups = find_units(model, X[:1]).groups
    decisions = tuple(decision(g, [u for u in range(g.size) if u % 3 != 1]) for g in groups[:1])
    pruned = cut(model, decisions)
    expected = {k: v.tolist() for k, v in kept_outputs(model, decisions).items()}
    with torch.no_grad():
        pruned.get_submodule(groups[0].name).weight *= 1.7  # trained since
    found = matched_outputs(pruned, model, X, groups)
    assert {k: v.tolist() for k, v in found.items()} == {k: v for k, v in expected.items() if k in found}
    assert groups[0].name in found


def test_channels_that_are_like_none_are_refused():
    model = made("perceptron")
    pruned = cut(model, halved(model))
    with torch.no_grad():
        pruned.fc2.weight.normal_(generator=torch.Generator().manual_seed(9))
        pruned.fc2.bias.normal_(generator=torch.Generator().manual_seed(9))
    with pytest.raises(UserError, match="with plan"):
        matched_outputs(pruned, model, X)
