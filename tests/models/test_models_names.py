"""Names to networks, and what a network was built from."""

import pytest
import torch
from torch import nn

import tiny
from coprune.errors import UserError
from coprune.models import Source, accepted_arguments, build, remember, source_of


@pytest.mark.parametrize(("name", "depth"), [("resnet20", 20), ("resnet56", 56), ("vgg16_bn", 14)])
@pytest.mark.parametrize("size", [28, 32])
def test_networks_have_their_layers_and_classes(name, depth, size):
    net = build(Source(f"coprune:{name}", {"in_channels": 2, "num_classes": 7, "width": 2}))
    # Layers on the main path; the two 1×1 skips are not counted in a ResNet's name. VGG-16's three
    # linear layers are one here, as in the pruning papers.
    dense = [
        n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in n
    ]
    assert len(dense) == depth
    assert net(torch.zeros(3, 2, size, size)).shape == (3, 7)
    assert not net.training


def test_published_sizes():
    # He et al. 2015, table 6: 0.27 M and 0.85 M parameters (with 1×1 skips a little more).
    assert sum(p.numel() for p in build(Source("coprune:resnet20")).parameters()) == pytest.approx(
        0.27e6, rel=0.02
    )
    assert sum(p.numel() for p in build(Source("coprune:resnet56")).parameters()) == pytest.approx(
        0.855e6, rel=0.01
    )


def test_a_network_remembers_its_source():
    source = Source("coprune:resnet20", {"width": 4})
    assert source_of(build(source)) == source
    assert source_of(nn.Linear(1, 1)) is None
    net = nn.Linear(1, 1)
    assert remember(net, source) is net
    assert source_of(net) == source
    assert "_coprune_source" not in net.state_dict()


def test_a_users_factory():
    net = build(Source("python:tiny:Flattened", {"classes": 5}))
    assert isinstance(net, tiny.Flattened)
    assert net(torch.zeros(2, 1, 12, 12)).shape == (2, 5)


def test_only_arguments_that_a_factory_takes_are_offered():
    offered = {"in_channels": 1, "num_classes": 3, "classes": 3, "colour": "red"}
    assert accepted_arguments("coprune:resnet20", offered) == {"in_channels": 1, "num_classes": 3}
    assert accepted_arguments("python:tiny:Flattened", offered) == {"classes": 3}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("coprune:resnet21", "did you mean coprune:resnet20"),
        ("resnet20", "did you mean coprune:resnet20"),
        ("coprune:", "unknown model"),
        ("python:tiny", "write python:package.module:factory"),
        ("python:no.such:net", "cannot be imported"),
        ("python:tiny:Flatened", "did you mean Flattened"),
        ("torchvision:resnet18", "unknown model"),
    ],
)
def test_unknown_names_are_one_line(name, words):
    with pytest.raises(UserError, match=words) as caught:
        build(Source(name))
    assert "\n" not in str(caught.value)


def test_refused_arguments_and_foreign_results():
    with pytest.raises(UserError, match="refused"):
        build(Source("coprune:resnet20", {"colour": "red"}))
    with pytest.raises(UserError, match="not a torch"):
        build(Source("python:tiny:group", {"size": 3}))


@pytest.mark.parametrize("width", [0, -1])
def test_an_impossible_width_is_one_line(width):
    # Once a bug: −1 is a RuntimeError of PyTorch; 0 gives a network without channels.
    with pytest.raises(UserError):
        build(Source("coprune:resnet20", {"width": width}))
