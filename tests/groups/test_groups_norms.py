"""Norms without weights count too: they remember how many channels there are."""

import pytest
import torch
from torch import nn

import tiny
import tiny_coupled
from coprune.groups import find_units
from coprune.plan import Member
from coprune.store import load, save_model
from coprune.surgery import cut, masked, sound

IMAGE = torch.zeros(1, 1, 12, 12)


class Bare(nn.Module):
    """A stream, an inner group behind a batch norm without weights, and a bare layer norm at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.up = nn.Conv2d(4, 6, 1)
        self.between = nn.BatchNorm2d(6, affine=False)
        self.down = nn.Conv2d(6, 4, 1)
        self.norm = nn.LayerNorm(4, elementwise_affine=False)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = x + self.down(torch.relu(self.between(self.up(x))))
        return self.fc(self.norm(x.mean((2, 3))))


def test_norms_without_weights_are_cut_with_their_groups_and_stored(tmp_path):
    net = Bare().eval()
    nn.init.uniform_(net.between.running_var, 0.5, 2.0)
    units = find_units(net, IMAGE, coupled=True)
    groups = {g.name: g for g in units.groups}
    assert Member(layer="between", role="carrier") in groups["up"].members
    assert Member(layer="norm", role="carrier") in groups["stem"].members
    decisions = (tiny.decision(groups["stem"], [0, 2, 3]), tiny.decision(groups["up"], [1, 4]))
    smaller = cut(net, decisions)
    assert (smaller.between.num_features, smaller.norm.normalized_shape) == (2, (3,))
    x = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    with masked(net, decisions), torch.no_grad():
        assert torch.allclose(net(x), smaller(x), atol=1e-6)
    save_model(tmp_path, smaller)
    assert torch.equal(load(tmp_path, model=Bare())(x), smaller(x))


def test_norms_of_libraries_are_carriers_as_pytorchs_are():
    net = tiny_coupled.networks()["own_norms"]
    groups = {g.name: g for g in find_units(net, IMAGE, coupled=True).groups}
    assert [m for m in groups["made"].members if m.role == "carrier"] == [Member(layer="rms", role="carrier")]
    assert Member(layer="response", role="carrier") in groups["up"].members
    smaller = cut(net, (tiny.decision(groups["made"], [0, 2, 3]), tiny.decision(groups["up"], [1, 4])))
    assert (smaller.rms.normalized_shape, len(smaller.rms.weight)) == ((3,), 3)
    assert len(smaller.response.weight) == len(smaller.response.bias) == 2


class Grouped(nn.Module):
    """A norm over groups of channels that is no PyTorch layer, with an activation and a weight of its own."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.up = nn.Conv2d(4, 8, 1)
        self.norm = kind(8, groups=4)
        self.down = nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.down(self.norm(self.up(torch.relu(self.stem(x))))).mean((2, 3)))


@pytest.mark.parametrize("kind", ["EvoNorm2dS0", "EvoNorm2dS0a", "EvoNorm2dS1", "EvoNorm2dS2"])
def test_a_unit_of_a_norm_over_groups_is_a_group(kind, tmp_path):
    layers = pytest.importorskip("timm.layers.evo_norm")
    net = tiny.randomise(Grouped(getattr(layers, kind)))
    units = find_units(net, IMAGE, coupled=True)
    assert sound(net, units, IMAGE).groups == units.groups
    group = next(g for g in units.groups if g.name == "up")
    assert group.size == 4
    decisions = (tiny.decision(group, [0, 2, 3]),)
    smaller = cut(net, decisions)
    assert (smaller.norm.groups, len(smaller.norm.weight), smaller.down.in_channels) == (3, 6, 6)
    x = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    with masked(net, decisions), torch.no_grad():
        assert torch.allclose(net(x), smaller(x), atol=1e-6)
    save_model(tmp_path, smaller)
    assert torch.equal(load(tmp_path, model=Grouped(getattr(layers, kind)))(x), smaller(x))
