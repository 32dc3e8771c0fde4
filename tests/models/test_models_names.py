"""Names to networks, and what a network was built from."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import tiny
from coprune.errors import UserError
from coprune.measure import count_macs, count_params
from coprune.models.names import ModelSource
from coprune.models.registry import accepted_arguments, build, remember, source_of


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("resnet20", 20),
        ("resnet56", 56),
        ("resnet110", 110),
        ("vgg16_bn", 14),
        ("vgg19_bn", 17),
        ("mobilenet_v2", 53),
        ("densenet40", 40),
    ],
)
@pytest.mark.parametrize("size", [28, 32])
def test_networks_have_their_layers_and_classes(name, depth, size):
    net = build(ModelSource(f"coprune:{name}", {"in_channels": 2, "num_classes": 7, "width": 2}))
    # Layers on the main path; the two 1×1 skips are not counted in a ResNet's name. VGG-16's three
    # linear layers are one here, as in the pruning papers.
    dense = [
        n for n, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in n
    ]
    assert len(dense) == depth
    assert net(torch.zeros(3, 2, size, size)).shape == (3, 7)
    assert not net.training


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # He et al. 2015, table 6 (arXiv 1512.03385); with 1×1 skips a little more. 41, 127 and 255 M
        # multiply-adds are what the pruning papers count.
        ("resnet20", 0.27e6, 41e6),
        ("resnet56", 0.855e6, 127e6),
        ("resnet110", 1.73e6, 255e6),
        # 14.7 and 20.0 M with one linear layer; 313 and 398 M multiply-adds.
        ("vgg16_bn", 14.72e6, 313e6),
        ("vgg19_bn", 20.04e6, 398e6),
        # 2.24 M with ten classes: Sandler et al. 2018 (arXiv 1801.04381) less 990 classes.
        ("mobilenet_v2", 2.24e6, 88e6),
        # Huang et al. 2017, table 2 (arXiv 1608.06993): 1.0 M for k = 12.
        ("densenet40", 1.02e6, 265e6),
    ],
)
def test_published_sizes(name, params, macs):
    net = build(ModelSource(f"coprune:{name}"))
    assert count_params(net) == pytest.approx(params, rel=0.01)
    assert count_macs(net, torch.zeros(1, 3, 32, 32)) == pytest.approx(macs, rel=0.015)


def test_a_mobile_net_has_the_published_size_but_for_its_strides():
    models = pytest.importorskip("torchvision.models")
    ours, theirs = build(ModelSource("coprune:mobilenet_v2")), models.mobilenet_v2(num_classes=10)
    assert sorted(map(tuple, (p.shape for p in ours.parameters()))) == sorted(
        map(tuple, (p.shape for p in theirs.parameters()))
    )
    strides = [[m.stride[0] for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (ours, theirs)]
    assert [i for i, (a, b) in enumerate(zip(*strides, strict=True)) if a != b] == [0, 4]


def test_a_network_remembers_its_source():
    source = ModelSource("coprune:resnet20", {"width": 4})
    assert source_of(build(source)) == source
    assert source_of(nn.Linear(1, 1)) is None
    net = nn.Linear(1, 1)
    assert remember(net, source) is net
    assert source_of(net) == source
    assert "_coprune_source" not in net.state_dict()


def test_a_users_factory():
    net = build(ModelSource("python:tiny:Flattened", {"classes": 5}))
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
        ("torchvison:resnet18", "did you mean torchvision:NAME"),
    ],
)
def test_unknown_names_are_one_line(name, words):
    with pytest.raises(UserError, match=words) as caught:
        build(ModelSource(name))
    assert "\n" not in str(caught.value)


def test_refused_arguments_and_foreign_results():
    with pytest.raises(UserError, match="refused"):
        build(ModelSource("coprune:resnet20", {"colour": "red"}))
    with pytest.raises(UserError, match="not a torch"):
        build(ModelSource("python:tiny:group", {"size": 3}))


def test_a_factory_that_fails_is_one_line(tmp_path, monkeypatch):
    # Once a bug: a KeyError of a user's own code was a traceback.
    (tmp_path / "failing_nets.py").write_text("def make():\n    return {}['depth']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"fails in .*failing_nets.py, line 2: KeyError: .depth."):
        build(ModelSource("python:failing_nets:make"))


@pytest.mark.parametrize("width", [0, -1])
def test_an_impossible_width_is_one_line(width):
    # Once a bug: −1 is a RuntimeError of PyTorch; 0 gives a network without channels.
    with pytest.raises(UserError):
        build(ModelSource("coprune:resnet20", {"width": width}))


def test_names_are_known_without_torch():
    code = """
import sys
from coprune.errors import UserError
from coprune.models.names import bundled_names, check_known
for name in ("coprune:resnet20", "timm:x", "hf:x", "python:a:b", ".", *bundled_names()):
    check_known(name)
wrong = {"coprune:resnet21": "coprune:resnet20", "runs/none": "no such run folder", "tim:x": "timm:NAME"}
for name, near in wrong.items():
    try:
        check_known(name)
    except UserError as refused:
        assert near in str(refused), refused
    else:
        raise AssertionError(name)
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
