"""Networks of Ultralytics: by name, from a file without its pickle, and pruned back into ``YOLO``."""

import numpy as np
import pytest
import torch
from torch import nn

import coprune
import tiny
from coprune.compat import ultralytics as compat
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.models.names import ModelSource, brings_weights, check_known
from coprune.models.registry import source_of
from coprune.models.yolo import yolo
from coprune.store import open_model, save_model
from coprune.surgery import cut

ultralytics = pytest.importorskip("ultralytics", exc_type=ImportError)  # its OpenCV may lack a library

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NAME = "ultralytics:yolo11n.yaml"


@pytest.fixture(scope="module")
def model():
    return open_model(NAME, arguments={"num_classes": 3}, offered={"in_channels": 3})


@pytest.fixture(scope="module")
def pruned(model):
    groups = find_units(model, X[:1]).groups
    return cut(model, [tiny.decision(g, list(range(0, g.size, 2))) for g in groups])


def shapes(net):
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def test_the_version_is_known():
    version = tuple(int(part) for part in ultralytics.__version__.split(".")[:2])
    assert compat.VERSIONS[0] <= version < compat.VERSIONS[1]


def test_a_configuration_has_its_size_its_classes_and_channels(model):
    assert type(model).__name__ == "DetectionModel"
    assert source_of(model) == ModelSource(NAME, {"num_classes": 3, "in_channels": 3})
    assert (model.yaml["nc"], len(model.names), model.yaml["scale"]) == (3, 3, "n")
    assert not model.training
    grey = open_model("ultralytics:yolov8n.yaml", arguments={"in_channels": 1}, offered={})
    assert grey.model[0].conv.in_channels == 1
    assert len(grey.names) == 80


def test_other_names_are_refused():
    for name in ("yolo11.yml", "../yolo11n.yaml", "/etc/passwd", "resnet"):
        with pytest.raises(UserError, match=r"unknown model 'ultralytics:"):
            open_model(f"ultralytics:{name}", arguments={}, offered={})
    check_known(NAME)
    assert not brings_weights(NAME, None)
    assert brings_weights("ultralytics:best.pt", None)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ultralytics", None)
    with pytest.raises(UserError, match=r"AGPL-3\.0\): pip install coprune\[detection\]"):
        open_model(NAME, arguments={}, offered={})


def test_a_pruned_network_is_saved_and_loaded_with_its_names(pruned, tmp_path):
    pruned.names = {0: "cat", 1: "traffic light", 2: "dog"}
    save_model(tmp_path, pruned)
    loaded = coprune.load(tmp_path)
    assert loaded.names == pruned.names
    assert torch.equal(loaded(X)[0], pruned(X)[0])


def checkpoint(path, net, **more):
    """As the library writes them: a pickle of the whole network."""
    torch.save({"model": net.half(), "ema": None, "train_args": {"imgsz": 64}, **more}, path)


def test_a_file_is_opened_and_rebuilt_by_its_configuration(model, tmp_path):
    net = compat._plain_copy(model)
    net.names = {0: "a", 1: "b", 2: "c"}
    checkpoint(tmp_path / "best.pt", net)
    found = open_model(f"ultralytics:{tmp_path}/best.pt", arguments={}, offered={"num_classes": 9})
    assert source_of(found) == ModelSource(NAME, {"num_classes": 3, "in_channels": 3})
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in found.parameters())
    torch.testing.assert_close(found(X)[0], model(X)[0], atol=0.5, rtol=0.02)  # it was stored in half
    save_model(tmp_path / "run", found)
    assert torch.equal(coprune.load(tmp_path / "run")(X)[0], found(X)[0])
    with pytest.raises(UserError, match="is a trained model and has its own"):
        open_model(f"ultralytics:{tmp_path}/best.pt", arguments={"num_classes": 3}, offered={})


class Evil:
    def __reduce__(self):
        return open, ("ran", "w")


def test_no_code_of_a_file_is_run(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint("evil.pt", compat._plain_copy(model), evil=Evil())
    torch.save({"weights": torch.zeros(2)}, "plain.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name, words in (
        ("evil", "cannot be opened"),
        ("plain", "holds no model"),
        ("text", "cannot be opened"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            open_model(f"ultralytics:{name}.pt", arguments={}, offered={})
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_yolo_predicts_with_the_pruned_network(pruned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    front = yolo(pruned)
    assert isinstance(front, ultralytics.YOLO)
    before = pruned(X)[0]
    assert torch.equal(front.model(X)[0], before)
    found = front.predict(np.zeros((64, 64, 3), dtype=np.uint8), imgsz=64, verbose=False)
    assert found[0].names == pruned.names
    # Predicting fuses what it holds, which is not the one given.
    assert any(isinstance(m, nn.BatchNorm2d) for m in pruned.modules())
    assert torch.equal(pruned(X)[0], before)
    with pytest.raises(UserError, match="this Linear is no network of Ultralytics"):
        yolo(nn.Linear(2, 2))


@pytest.fixture
def boxes(tmp_path):
    """White squares on black, of three classes."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        for i in range(4):
            picture = np.zeros((64, 64, 3), np.uint8)
            x, y = draw.integers(0, 40, 2)
            picture[y : y + 20, x : x + 20] = 255
            Image.fromarray(picture).save(tmp_path / "images" / part / f"{i}.png")
            box = f"{i % 3} {(x + 10) / 64} {(y + 10) / 64} {20 / 64} {20 / 64}\n"
            (tmp_path / "labels" / part / f"{i}.txt").write_text(box)
    (tmp_path / "boxes.yaml").write_text(
        f"path: {tmp_path}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n"
    )
    return tmp_path / "boxes.yaml"


def test_yolo_trains_and_validates_the_pruned_sizes(pruned, boxes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    front = yolo(pruned)
    common = {"data": str(boxes), "imgsz": 64, "workers": 0, "plots": False, "verbose": False}
    assert 0 <= front.val(**common, project=str(tmp_path)).box.map <= 1
    # What validating has fused is not what is trained.
    front.train(**common, epochs=1, batch=4, device="cpu", amp=False, project=str(tmp_path))
    assert shapes(front.model) == shapes(pruned)
    assert front.model.names == {0: "a", 1: "b", 2: "c"}
    best = open_model(f"ultralytics:{front.overrides['model']}", arguments={}, offered={})
    assert shapes(best) == shapes(pruned)
    save_model(tmp_path / "run", best)
    assert torch.equal(coprune.load(tmp_path / "run")(X)[0], best(X)[0])
