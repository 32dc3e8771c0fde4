"""Convolutions that standardise their weight: folded once, then like any other."""

import copy

import pytest
import torch
from torch import nn

import coprune
import tiny
from coprune.groups import find_units
from coprune.models.canonicalize import canonical_copy, canonicalize
from coprune.models.weight_standardization import STANDARDISED, PlainConv2d, fold_standardised, folded_in
from coprune.store import load, save_model
from coprune.surgery import cut, masked

std_conv = pytest.importorskip("timm.layers.std_conv")


def layer(kind, *, kernel=3, stride=1, dilation=1, groups=1, bias=True):
    """One of timm's layers with weights that are not standardised."""
    made = getattr(std_conv, kind)(
        6, 8, kernel_size=kernel, stride=stride, dilation=dilation, groups=groups, bias=bias,
        **({} if kind.endswith("Same") else {"padding": kernel // 2 * dilation}),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.normal_(0.3, 0.5, generator=generator)
    return made.double()


class Standardised(nn.Module):
    """A residual network in timm's style, with both kinds of layers, one of them padding as SAME."""

    def __init__(self, extra=0):
        super().__init__()
        self.stem = std_conv.StdConv2dSame(1, 6, kernel_size=3, stride=2)
        self.up = std_conv.ScaledStdConv2d(6, 8, 3, padding=1)
        self.same = std_conv.ScaledStdConv2dSame(8, 8, kernel_size=3)
        self.down = std_conv.StdConv2d(8, 6, 1, bias=False)
        self.fc = nn.Linear(6, 3 + extra)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.down(torch.relu(self.same(torch.relu(self.up(x)))))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kind", STANDARDISED)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"kernel": 5, "stride": 3},
        {"dilation": 2},
        {"groups": 2, "bias": False},
        {"kernel": 1, "stride": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(9, 9), (12, 7)], ids=str)
def test_a_folded_layer_computes_the_same(kind, options, size):
    model = nn.Sequential(layer(kind, **options)).eval()
    x = torch.randn(2, 6, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = model(x)
    fold_standardised(model)
    assert type(model[0]) is PlainConv2d
    assert torch.allclose(model(x), expected, rtol=0, atol=1e-12)


def test_what_trains_and_what_does_not_is_kept():
    model = nn.Sequential(layer("StdConv2d"), layer("ScaledStdConv2d", bias=False)).train()
    model[0].weight.requires_grad_(False)
    fold_standardised(model)
    assert not model[0].weight.requires_grad
    assert model[0].bias.requires_grad
    assert model[1].weight.requires_grad
    assert model[0].training
    assert model[1].bias is None


def test_only_the_named_ones_are_folded_and_named():
    model = Standardised()
    assert folded_in(fold_standardised(model, only=["up"])) == ("up",)
    assert folded_in(fold_standardised(model)) == ("stem", "up", "same", "down")


def test_a_users_model_is_left_as_it_is():
    model = Standardised().eval()
    before = copy.deepcopy(model.state_dict())
    assert len(folded_in(canonical_copy(model))) == 4
    assert not folded_in(model)
    assert tiny.same_state(before, model.state_dict())


def test_cut_masked_and_stored_ones_agree(tmp_path):
    net = canonicalize(tiny.randomise(Standardised()))
    x = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    units = find_units(net, x[:1], coupled=True)
    assert {g.name for g in units.groups} >= {"up", "same"}
    decisions = tiny.random_decisions(units.groups, 2)
    smaller = cut(net, decisions)
    with masked(net, decisions), torch.no_grad():
        assert torch.allclose(net(x), smaller(x), atol=1e-5)
    save_model(tmp_path, smaller)
    assert torch.equal(load(tmp_path, model=Standardised())(x), smaller(x))


def test_the_plan_of_a_standardised_model_fits_the_users_own(tmp_path):
    net = tiny.randomise(Standardised())
    x = torch.randn(24, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 3
    batches = [(x[i : i + 8], labels[i : i + 8]) for i in range(0, 24, 8)]
    outcome = tiny.prune(net, train=batches, eval=batches, keep_macs=0.6, recovery="none", device="cpu")
    smaller = coprune.apply_plan(net, outcome.plan, x[:1])
    with torch.no_grad():
        assert torch.allclose(smaller.eval()(x), outcome.model(x), atol=1e-6)
    outcome.save(tmp_path / "run")
    assert torch.equal(coprune.load(tmp_path / "run", model=Standardised())(x), outcome.model(x))
