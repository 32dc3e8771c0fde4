"""What a training does where nobody says it: as suits the model, and never what was said otherwise."""

from __future__ import annotations

import pytest
from torch import nn

import tiny
from coprune.training import Recipe, finetuning
from coprune.training.defaults import BaseRecipe, is_transformer, suited

ENCODER = nn.TransformerEncoderLayer(8, 2)


class SelfAttention(nn.Module):
    """A user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)


class SpatialAttention(nn.Module):
    """A gate of a convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7)


@pytest.mark.parametrize(
    ("model", "does"),
    [
        (ENCODER, True),
        (SelfAttention(), True),
        (SpatialAttention(), False),
        (tiny.network("resnet20"), False),
        (nn.Sequential(nn.Linear(4, 4)), False),
    ],
)
def test_what_has_attention_is_a_transformer(model, does):
    assert is_transformer(model) == does


def test_convolutional_networks_are_trained_as_ever():
    net = tiny.network("resnet20")
    for recipe in (finetuning(epochs=2), BaseRecipe(), Recipe(epochs=1, lr=0.3)):
        assert suited(recipe, net, trained=True) == recipe
    assert (BaseRecipe().lr, BaseRecipe().schedule, finetuning().lr) == (0.1, "onecycle", 0.02)


@pytest.mark.parametrize(("trained", "lr"), [(True, 2e-5), (False, 3e-4)])
def test_transformers_are_trained_with_adamw(trained, lr):
    for recipe in (finetuning(epochs=2), BaseRecipe()):
        found = suited(recipe, ENCODER, trained=trained)
        assert (found.optimizer, found.lr, found.schedule, found.warmup) == ("adamw", lr, "linear", 0.1)
        assert (found.weight_decay, found.clip, found.batch_size, found.unit_clip) == (0.01, 1.0, 32, 0.0)
        assert (found.epochs, found.distill) == (recipe.epochs, recipe.distill)
        assert suited(found, ENCODER, trained=not trained) == found


def test_what_was_asked_for_stays():
    given = {"lr": 1e-4, "batch_size": 8, "schedule": "constant", "clip": 5.0}
    found = suited(finetuning(epochs=1, **given), ENCODER, trained=True)
    assert {name: getattr(found, name) for name in given} == given
    assert found.optimizer == "adamw"
    sgd = finetuning(epochs=1, optimizer="sgd")
    assert suited(sgd, ENCODER, trained=True) == sgd
    assert suited(BaseRecipe(optimizer="adamw"), tiny.network("resnet20"), trained=False).lr == 1e-3
