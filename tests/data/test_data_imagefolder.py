"""Folders of images: the usual transforms, decoded when asked for, every defect one line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from coprune.data import MemorySource, imagefolder, load_data
from coprune.data.imagefolder import load
from coprune.errors import UserError
from images import write_folders

pytest.importorskip("torchvision")
from PIL import Image


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "set")


def test_a_data_set_by_name(root):
    data = load_data(f"imagefolder:{root}@16", calibration=6)
    assert (len(data.train), len(data.calibration), len(data.heldout)) == (18, 6, 12)
    assert (data.classes, data.input_shape) == (3, (3, 16, 16))
    assert data.names == ("n000", "n001", "n002")
    assert torch.bincount(data.calibration.labels).tolist() == [2, 2, 2]
    assert isinstance(data.calibration, MemorySource)
    x, y = next(iter(data.heldout.batches(5)))
    assert x.shape == (5, 3, 16, 16)
    assert y.tolist() == [0, 0, 0, 0, 1]
    # The colour of a class is what is brightest in it: channels and labels belong together.
    whole = torch.cat([x for x, _ in data.heldout.batches(5)])
    assert whole.mean((2, 3)).argmax(1).tolist() == data.heldout.labels.tolist()


def test_test_images_with_classes_are_held_out_and_val_judges(root):
    shutil.copytree(root / "val", root / "test")
    for file in (root / "test").rglob("0.*"):
        file.unlink()
    data = load_data(f"imagefolder:{root}@16", calibration=6)
    assert data.heldout.root.name == "test"
    assert data.validation.root.name == "val"
    assert len(data.heldout) == len(data.validation) - 3
    # ImageNet's own have none.
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    data = load_data(f"imagefolder:{root}@16", calibration=6)
    assert (data.heldout.root.name, data.validation) == ("val", None)


def test_the_size_is_224_unless_named(root):
    assert load(str(root))[0].input_shape == (3, 224, 224)
    # A folder that is called so is meant itself.
    shutil.move(root, f"{root}@16")
    assert load(f"{root}@16")[0].input_shape == (3, 224, 224)


def test_looking_is_exact(tmp_path):
    root = write_folders(tmp_path / "set")
    # 64×32 grey values of their column: scaled to 32×16 (the shorter side to 16 = 14·256/224), the middle
    # 14 × 14 of which start at row 1 and column 9.
    columns = np.broadcast_to(np.arange(64, dtype=np.uint8) * 3, (32, 64))
    path = root / "val" / "n000" / "0.png"
    Image.fromarray(columns).save(path)
    for file in path.parent.glob("*.JPEG"):
        file.unlink()
    x, _ = next(iter(load(f"{root}@14")[1].batches(1)))
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    grey = x[0] * std.view(3, 1, 1) + mean.view(3, 1, 1)
    wanted = (3 * (2 * torch.arange(9, 23) + 0.5)) / 255
    assert torch.allclose(grey, wanted.expand(3, 14, 14), atol=1.01 / 255)


def epochs(source, **how):
    return list(source.epoch(5, seed=3, **how))


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a, b) and torch.equal(i, j) for (a, i), (b, j) in zip(one, two, strict=True)
    )


def test_training_is_a_function_of_seed_and_epoch(root):
    train, _ = load(f"{root}@16")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = epochs(train, epoch=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(y) for _, y in first] == [5, 5, 5, 5, 4]
    assert sorted(torch.cat([y for _, y in first]).tolist()) == sorted(train.labels.tolist())
    torch.manual_seed(6)
    assert same(first, epochs(train, epoch=0))
    assert same(first[2:], epochs(train, epoch=0, skip=2))
    assert not same(first, epochs(train, epoch=1))
    assert train.steps(5) == 5
    assert len(epochs(train, epoch=0, fraction=0.5)) == train.steps(5, 0.5) == 3


def test_more_processes_give_the_same(root, monkeypatch):
    train, heldout = load(f"{root}@16")
    alone = epochs(train, epoch=0), list(heldout.batches(5))
    monkeypatch.setattr(imagefolder, "_MANY", 1)
    monkeypatch.setattr(imagefolder.os, "cpu_count", lambda: 2)
    assert same(alone[0], epochs(train, epoch=0))
    assert same(alone[1], list(heldout.batches(5)))
    (root / "val" / "n001" / "2.JPEG").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2.JPEG: not a readable image") as caught:
        list(heldout.batches(5))
    assert "\n" not in str(caught.value)


def test_nothing_is_decoded_before_it_is_asked_for(root):
    for file in root.rglob("*.JPEG"):
        file.write_bytes(b"no image")
    data = load_data(f"imagefolder:{root}@16", calibration=6)
    with pytest.raises(UserError, match=r"val/n000/0.JPEG: not a readable image"):
        next(iter(data.heldout.batches(2)))


@pytest.mark.parametrize("kind", ["JPEG", "png"])
def test_a_truncated_image_is_one_line(root, kind):
    path = root / "val" / "n000" / f"0.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(UserError, match=f"0.{kind}: not a readable image"):
        list(load(f"{root}@16")[1].batches(4))


def test_fingerprints(root):
    train, heldout = load(f"{root}@16")
    before = train.fingerprint()
    assert before == load(f"{root}@16")[0].fingerprint() != heldout.fingerprint()
    assert train.fingerprint() != load(f"{root}@17")[0].fingerprint()
    (root / "train" / "n000" / "0.JPEG").write_bytes(b"other")
    assert before != load(f"{root}@16")[0].fingerprint()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: shutil.rmtree(root / "val"), "val/ is missing"),
        (lambda root: shutil.rmtree(root / "val" / "n001"), "classes n001 of train are not in val"),
        (lambda root: shutil.rmtree(root / "train" / "n001"), "classes n001 of val are not in train"),
        (lambda root: (root / "train" / "n009").mkdir(), "train/: Found no valid file for the classes n009"),
        (
            lambda root: [shutil.rmtree(p) for p in (root / "train").iterdir()],
            "Couldn't find any class folder",
        ),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_a_bad_folder_is_one_line(root, change, words):
    change(root)
    with pytest.raises(UserError, match=words) as caught:
        load_data(f"imagefolder:{root}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"), [("imagefolder:", "names no folder"), ("imagefolder:{}@0", "0 pixels")]
)
def test_bad_names(root, name, words):
    with pytest.raises(UserError, match=words):
        load_data(name.format(root))


def test_a_plugin_that_is_missing_is_no_other_error(root, monkeypatch):
    # Once a bug: once ultralytics is imported, PIL looks for a plugin before it says that a file is no image.
    def opened(*_, **__):
        raise ModuleNotFoundError("No module named 'pi_heif'")

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(UserError, match="not a readable image"):
        next(iter(load(f"{root}@16")[1].batches(2)))
