"""Weights that are computed anew in every pass: taken once, then cut like any other."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import coprune
import tiny
from coprune.models.canonicalize import canonical_copy, canonicalize
from coprune.models.parametrizations import fold_reparametrised
from coprune.store import load, save_model


class Symmetric(nn.Module):
    """A parametrisation of the user's own, that keeps one tensor."""

    def forward(self, x):
        return x + x.flip(-1)


def older_weight_norm(layer):
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(layer)


KINDS = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "a user's own": lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()),
    "older weight norm": older_weight_norm,
    "older spectral norm": nn.utils.spectral_norm,
}


class Net(nn.Module):
    """Three convolutions, each of which computes its weight."""

    def __init__(self, kind="weight norm", *, extra=0):
        super().__init__()
        wrap = KINDS[kind]
        self.a = wrap(nn.Conv2d(1, 8, 3))
        self.b = wrap(nn.Conv2d(8, 8, 3))
        self.c = wrap(nn.Conv2d(8, 8, 3))
        self.fc = nn.Linear(8, 3 + extra)

    def forward(self, x):
        for layer in (self.a, self.b, self.c):
            x = torch.relu(layer(x))
        return self.fc(x.mean((2, 3)))


def batches(n=90):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, 10, 10, generator=generator) + labels.view(-1, 1, 1, 1)
    return list(zip(images.split(30), labels.split(30), strict=True))


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("training", [False, True])
def test_it_computes_what_it_did(kind, training):
    model = Net(kind).eval()
    x = batches()[0][0]
    wanted = model(x)
    model.train(training)
    fold_reparametrised(model)
    assert model.training == training
    assert not any(
        "parametrizations" in name or name.endswith(("_g", "_orig")) for name in model.state_dict()
    )
    assert type(model.a) is nn.Conv2d
    assert isinstance(model.a.weight, nn.Parameter)
    torch.testing.assert_close(model.eval()(x), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["weight norm", "a user's own"])
def test_what_is_frozen_stays_so(kind):
    model = Net(kind)
    for parameter in model.a.parametrizations.parameters():
        parameter.requires_grad_(False)
    fold_reparametrised(model)
    assert not model.a.weight.requires_grad
    assert model.b.weight.requires_grad


@pytest.mark.parametrize("only", [None, []])
def test_every_part_keeps_its_mode(only):
    model = nn.Sequential(Net(), nn.BatchNorm1d(3)).train()
    model[1].eval()
    fold_reparametrised(model, only=only)
    assert [model.training, model[0].a.training, model[1].training] == [True, True, False]


def test_only_the_tensors_that_are_named():
    model = fold_reparametrised(Net("spectral norm"), only=["a.weight", "c.bias"])
    assert not parametrize.is_parametrized(model.a)
    assert parametrize.is_parametrized(model.c)
    model = fold_reparametrised(Net("older weight norm"), only=["a.weight"])
    assert "a.weight" in dict(model.named_parameters())
    assert "c.weight_v" in dict(model.named_parameters())


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_users_own_model_is_not_touched(kind):
    """Its layers share a class with those of the copy, and a weight of the last pass cannot be copied."""
    model = Net(kind).eval()
    x = batches()[0][0]
    wanted, state = model(x), copy.deepcopy(model.state_dict())
    canonical_copy(model)
    assert list(model.state_dict()) == list(state)
    assert torch.equal(model(x), wanted)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", list(KINDS))
def test_pruned_saved_and_loaded(kind, tmp_path):
    torch.manual_seed(0)
    model = Net(kind)
    for _ in range(2):
        outcome = tiny.prune(model, train=batches(), eval=batches(), keep_macs=0.5, finetune_epochs=1)
        assert outcome.result.stage("pruned").macs <= 0.5 * outcome.result.stage("base").macs
    assert {group.kind for group in outcome.plan.groups} == {"inner"}
    run = outcome.save(tmp_path / "run")
    x = batches()[0][0]
    assert torch.equal(coprune.load(run, model=Net(kind))(x), outcome.model(x))


def test_a_model_that_is_not_made_ready_is_saved_as_it_is(tmp_path):
    """``coprune train`` trains what the user has written."""
    model = Net().eval()
    save_model(tmp_path / "base", model)
    assert "a.parametrizations.weight.original0" in model.state_dict()
    loaded = load(tmp_path / "base", model=Net().eval())
    x = batches()[0][0]
    assert torch.equal(loaded(x), model(x))
    assert parametrize.is_parametrized(loaded.a)
    torch.testing.assert_close(canonicalize(loaded)(x), model(x))
