"""States that are put back: modules whose formats have versions take what they wrote themselves."""

import copy

import pytest
import torch
from torch import nn

from coprune.data import ArraySource
from coprune.models.copies import copied_state, put_state
from coprune.recovery import Pair, reconstruct
from coprune.training import Checkpoint, Recipe, fit
from coprune.training.loop import DivergedError


class Versioned(nn.Module):
    """As torchvision's MNASNet: a state without its version is refused."""

    _version = 2

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))

    def forward(self, x):
        return self.body(x)

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version") not in (1, 2):
            raise ValueError(f"version should be set to 1 or 2 instead of {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Versioned().eval()


def images(n=40):
    return ArraySource(
        torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 4
    )


def test_a_state_goes_back(net):
    before = copied_state(net)
    with torch.no_grad():
        net.body[0].weight += 1
    put_state(net, before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_reconstruction_that_does_not_help_is_taken_back(net):
    same = copy.deepcopy(net)
    found = reconstruct(Pair(same, net, {}), images(), visits=40)
    assert not found.changed
    assert torch.equal(same.body[0].weight, net.body[0].weight)


def test_a_training_goes_on_where_it_was(net, tmp_path):
    class Stops(Checkpoint):
        def save(self, *args, **named):
            super().save(*args, **named)
            raise DivergedError("stopped")

    recipe, other = Recipe(epochs=2, batch_size=20, lr=0.01), copy.deepcopy(net)
    fit(net, images(), recipe, seed=0)
    with pytest.raises(DivergedError):
        fit(copy.deepcopy(other), images(), recipe, seed=0, checkpoint=Stops(tmp_path / "state"))
    fit(other, images(), recipe, seed=0, checkpoint=Checkpoint(tmp_path / "state"))
    torch.testing.assert_close(other.body[0].weight, net.body[0].weight)
