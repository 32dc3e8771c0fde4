"""Coupled channels and the first layer's stay, unless nothing else could go or a budget needs them."""

import pytest
import torch
from torch import nn

import coprune
import tiny
from coprune.result import Code

X = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Stream(nn.Module):
    """Blocks that are added to a stream of 16, behind a first layer."""

    def __init__(self, *, inner=16):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.up = nn.ModuleList(nn.Conv2d(16, inner, 1) for _ in range(2))
        self.down = nn.ModuleList(nn.Conv2d(inner, 16, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return self.head(x.mean((2, 3)))


def pruned(net, keep, **more):
    torch.manual_seed(0)
    return coprune.prune(
        tiny.randomise(net), calibration=[X[:24], X[24:]], keep_macs=keep, latency_batches=(1,), **more
    )


def kinds(found):
    return {g.kind for g in found.plan.groups}


def codes(found):
    return [note.code for note in found.result.notes]


def test_a_budget_within_reach_takes_nothing_more():
    found = pruned(Stream(), 0.5)
    assert kinds(found) == {"inner"}
    assert Code.WIDENED not in codes(found)


def test_a_budget_that_would_leave_next_to_nothing_takes_coupled_channels_too():
    found = pruned(Stream(), 0.12)
    assert kinds(found) == {"inner", "coupled"}
    (note,) = [n for n in found.result.notes if n.code == Code.WIDENED]
    assert note.text == (
        "coupled channels and the first layer's may go too: without them keep_macs=0.12 would leave less "
        "than an eighth of every group"
    )
    assert abs(found.result.stages[1].macs / found.result.stages[0].macs - 0.12) < 0.02


def test_a_network_without_inner_channels_is_pruned_all_the_same():
    found = pruned(nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, 4)), 0.5)
    assert [g.name for g in found.plan.groups] == ["1"]
    assert "without them there is nothing to remove" in str(found.result.notes)
    assert found.model[1].out_features == 12


@pytest.mark.parametrize("asked", [{"units": ("inner",)}, {"only": ("up",)}])
def test_what_was_asked_for_is_not_widened(asked):
    with pytest.raises(coprune.UserError, match="cannot be reached"):
        pruned(Stream(inner=2), 0.12, **asked)


class Autoencoder(nn.Module):
    """Draws its code in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.stem, self.enter, self.both = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.Conv2d(12, 8, 1),
        )
        self.leave, self.out = nn.ConvTranspose2d(4, 12, 4, 2, 1), nn.ConvTranspose2d(12, 3, 4, 2, 1)

    def forward(self, x):
        mean, spread = self.both(self.enter(self.stem(x).relu()).relu()).chunk(2, 1)
        return self.out(self.leave(mean + torch.randn_like(mean) * (spread / 2).exp()).relu())


def test_a_network_that_draws_numbers_is_pruned_on_the_same_draws():
    found = pruned(Autoencoder(), 0.7)
    assert {g.name for g in found.plan.groups} >= {"enter", "leave"}
    assert found.result.stages[-1].value > 0.5  # R², of which draws of its own would leave little
    state = torch.get_rng_state()
    assert not torch.equal(found.model(X[:2]), found.model(X[:2]))  # to its user it is as random as before
    torch.set_rng_state(state)


def test_a_network_without_gradients_is_refused_in_one_line():
    # Once a crash: 🤗 RWKV writes to its own state in place.
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.mid, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            y = self.mid(self.first(x)).exp()
            z = y * y.detach()
            y.add_(1)
            return self.head(z * y)

    data = [torch.randn(24, 6), torch.randn(24, 6)]
    with pytest.raises(
        coprune.UserError, match="has no gradients, which the method reads: one of the variables"
    ):
        coprune.prune(tiny.randomise(Writing()), calibration=data, keep_macs=0.7)
