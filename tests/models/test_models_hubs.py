"""Networks of other libraries: built by name, stored without weights of theirs, one line when they lack."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

import coprune
from coprune.errors import UserError
from coprune.models.hubs import LIBRARIES, split_tag
from coprune.models.names import ModelSource
from coprune.models.registry import accepted_arguments, build, source_of
from coprune.store import open_model
from coprune.store.model import save_model

OFFERED = {"in_channels": 3, "num_classes": 5}


def tiny(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    if num_classes == 13:
        raise AssertionError
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    )


@pytest.fixture
def zoo(monkeypatch, tmp_path):
    """A stand-in for pytorchcv with two networks, and the weights that it would download."""
    provider = types.ModuleType("pytorchcv.model_provider")
    provider._models = {"tiny_cifar10": tiny, "tinier_cifar10": tiny}
    provider.get_model = lambda name, **arguments: provider._models[name](**arguments)
    store = types.ModuleType("pytorchcv.models.common.model_store")
    weights = tmp_path / "weights.pth"
    store.get_model_file = lambda name: str(weights)
    package = types.ModuleType("pytorchcv")
    package.model_provider = provider
    for name, module in {
        "pytorchcv": package,
        "pytorchcv.model_provider": provider,
        "pytorchcv.models": types.ModuleType("pytorchcv.models"),
        "pytorchcv.models.common": types.ModuleType("pytorchcv.models.common"),
        "pytorchcv.models.common.model_store": store,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return weights


def opened(name, **offered):
    return open_model(name, arguments={}, offered=offered or OFFERED)


def test_a_network_takes_what_the_data_offers(zoo):
    model = opened("pytorchcv:tiny_cifar10", in_channels=1, num_classes=5)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 5)
    assert source_of(model) == ModelSource("pytorchcv:tiny_cifar10", {"in_channels": 1, "num_classes": 5})
    assert not model.training


def test_published_weights_and_a_run_folder_that_needs_no_network(zoo, tmp_path):
    published = tiny()
    torch.save(published.state_dict(), zoo)
    model = opened("pytorchcv:tiny_cifar10@pretrained", in_channels=3, num_classes=10)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), published.parameters(), strict=True))
    save_model(tmp_path / "run", model)
    zoo.unlink()
    loaded = coprune.load(tmp_path / "run")
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded(x), published.eval()(x))
    assert source_of(loaded).name == "pytorchcv:tiny_cifar10"


def test_other_classes_get_a_fresh_head(zoo):
    published = tiny()
    torch.save(published.state_dict(), zoo)
    model = opened("pytorchcv:tiny_cifar10@pretrained", in_channels=3, num_classes=4)
    assert torch.equal(model[0].weight, published[0].weight)
    assert model[3].weight.shape == (4, 4)


class Evil:
    def __reduce__(self):
        return print, ("code of a weights file has run",)


def test_no_pickle_of_a_library_is_run(zoo, capsys):
    torch.save({"0.weight": Evil()}, zoo)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        opened("pytorchcv:tiny_cifar10@pretrained")
    assert "has run" not in capsys.readouterr().out
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(zoo):
    torch.save({"other": torch.zeros(3)}, zoo)
    with pytest.raises(UserError, match="do not fit"):
        opened("pytorchcv:tiny_cifar10@pretrained")
    zoo.unlink()
    with pytest.raises(UserError, match="check the network"):
        opened("pytorchcv:tiny_cifar10@pretrained")


@pytest.mark.parametrize("scheme", sorted(LIBRARIES))
def test_a_library_that_is_not_installed(monkeypatch, scheme):
    monkeypatch.setitem(sys.modules, scheme, None)
    with pytest.raises(UserError, match=r"pip install coprune\[vision\]") as caught:
        build(ModelSource(f"{scheme}:resnet18"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorchcv:tiny_cifar", "did you mean tiny_cifar10"),
        ("pytorchcv:", "write a name"),
        ("pytorchcv:tiny_cifar10@best", "@pretrained"),
    ],
)
def test_unknown_names(zoo, name, words):
    with pytest.raises(UserError, match=words):
        opened(name)


def test_a_librarys_assertion_is_one_line(zoo):
    with pytest.raises(UserError, match="refused"):
        opened("pytorchcv:tiny_cifar10", num_classes=13)


def test_tags():
    assert split_tag("torchvision:resnet18@IMAGENET1K_V1") == ("torchvision:resnet18", "IMAGENET1K_V1")
    assert split_tag("torchvision:resnet18") == ("torchvision:resnet18", None)
    assert split_tag("coprune:resnet20@fashion-mnist") == ("coprune:resnet20@fashion-mnist", None)
    assert split_tag("python:my.nets:make@home") == ("python:my.nets:make@home", None)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1", "googlenet"])
def test_torchvision(name, tmp_path):
    pytest.importorskip("torchvision")
    model = opened(f"torchvision:{name}")
    x = torch.rand(1, 3, 64, 64)
    assert model(x).shape == (1, 5)
    assert source_of(model) == ModelSource(f"torchvision:{name}", {"num_classes": 5})
    save_model(tmp_path, model)
    assert torch.equal(coprune.load(tmp_path)(x), model(x))


def test_every_classifier_of_torchvision_is_known():
    models = pytest.importorskip("torchvision.models")
    for name in models.list_models(module=models):
        assert accepted_arguments(f"torchvision:{name}", OFFERED) == {"num_classes": 5}
    with pytest.raises(UserError, match="did you mean resnet50"):
        build(ModelSource("torchvision:resnet5"))
    with pytest.raises(UserError, match="unknown model"):
        build(ModelSource("torchvision:fcn_resnet50"))  # segmentation


def test_torchvision_weights_by_tag(monkeypatch):
    models = pytest.importorskip("torchvision.models")
    import torchvision.models._api as api

    asked = []

    def fetched(url, **options):
        asked.append((url, options))
        return models.squeezenet1_1().state_dict()

    monkeypatch.setattr(api, "load_state_dict_from_url", fetched)
    opened("torchvision:squeezenet1_1@IMAGENET1K_V1", num_classes=1000)
    ((url, options),) = asked
    assert "squeezenet1_1" in url
    assert options == {"progress": False, "check_hash": True, "weights_only": True}
    with pytest.raises(UserError, match="no such weights"):
        opened("torchvision:squeezenet1_1@IMAGENET1K_V7")


def test_timm(tmp_path):
    pytest.importorskip("timm")
    model = opened("timm:resnet10t", in_channels=1, num_classes=4)
    x = torch.rand(1, 1, 64, 64)
    assert model(x).shape == (1, 4)
    save_model(tmp_path, model)
    assert torch.equal(coprune.load(tmp_path)(x), model(x))
    assert build(ModelSource("timm:resnet10t.c3_in1k", {"num_classes": 3}))(
        torch.rand(1, 3, 64, 64)
    ).shape == (
        1,
        3,
    )
    with pytest.raises(UserError, match="write timm:resnet10t@pretrained"):
        opened("timm:resnet10t@c3_in1k")


def test_timm_hands_out_the_maps_of_all_stages(tmp_path):
    pytest.importorskip("timm")
    model = open_model("timm:resnet18", arguments={"features_only": True}, offered={"num_classes": 3})
    found = model(torch.zeros(1, 3, 32, 32))
    assert [maps.shape[1] for maps in found] == [64, 64, 128, 256, 512]
    save_model(tmp_path, model)
    loaded = coprune.load(tmp_path)
    assert type(loaded) is type(model)
    assert all(torch.equal(a, b) for a, b in zip(found, loaded(torch.zeros(1, 3, 32, 32)), strict=True))
    with pytest.raises(UserError, match="takes no features_only"):
        open_model("torchvision:resnet18", arguments={"features_only": True}, offered={})
