"""CIFAR in its published layout: folders, archives, damage, and no pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import shutil
import urllib.error

import numpy as np
import pytest
import torch

from coprune.data import load_data
from coprune.data.cifar import ARCHIVES, load_cifar10, load_cifar100, read_records
from coprune.errors import UserError
from images import pack, shrink, write_cifar

LOADERS = {"cifar10": load_cifar10, "cifar100": load_cifar100}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing is downloaded by a test."""

    def refuse(url, target, progress):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_a_record_is_a_label_and_three_planes_of_pixels():
    planes = np.arange(3 * 32 * 32, dtype=np.int64) % 251
    raw = bytes([7]) + planes.astype(np.uint8).tobytes()
    images, labels = read_records(raw, ARCHIVES["cifar10"], records=1, where="x")
    assert labels.tolist() == [7]
    assert images.dtype == torch.uint8
    assert images[0, 1, 2, 3] == (1024 + 2 * 32 + 3) % 251  # green, third row, fourth pixel
    # CIFAR-100: the coarse label first, the fine one is used.
    images, labels = read_records(
        bytes([19]) + bytes([99]) + raw[1:], ARCHIVES["cifar100"], records=1, where="x"
    )
    assert labels.tolist() == [99]
    assert images[0, 2, 31, 31] == (3 * 1024 - 1) % 251


def test_the_published_sizes():
    for name, total in (("cifar10", 30_730_000), ("cifar100", 30_740_000)):
        archive = ARCHIVES[name]
        assert sum(archive.train.values()) == 50_000
        (records,) = archive.heldout.values()
        assert records * (archive.label_bytes + 3 * 32 * 32) == total


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("way", ["root", "folder", "archive", "file"])
def test_it_is_found(monkeypatch, tmp_path, name, way):
    shrink(monkeypatch)
    folder = write_cifar(tmp_path, name)
    place = {"root": tmp_path, "folder": folder}.get(way)
    if place is None:
        packed = pack(monkeypatch, tmp_path, name)
        place = packed if way == "file" else tmp_path
    train, heldout = LOADERS[name](str(place))
    files = 5 if name == "cifar10" else 1
    assert train.images.shape == (100 * files, 3, 32, 32)
    assert heldout.labels.tolist() == [i % ARCHIVES[name].classes for i in range(100)]
    assert (train.augmentation.flip, train.augmentation.shift) == (True, 4)
    assert train.normalisation == ARCHIVES[name].normalisation
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ARCHIVES[name].folder if way in ("root", "folder") else ARCHIVES[name].file
    ]


def test_a_data_set_by_name(monkeypatch, tmp_path):
    shrink(monkeypatch)
    write_cifar(tmp_path, "cifar10")
    data = load_data(f"cifar10:{tmp_path}", calibration=40)
    assert (len(data.train), len(data.calibration), len(data.heldout)) == (460, 40, 100)
    assert (data.classes, data.input_shape) == (10, (3, 32, 32))
    x, _ = next(iter(data.heldout.batches(100)))
    # A black pixel is −mean/std.
    assert float(x[:, 0].min()) >= -0.4914 / 0.2470 - 1e-6


@pytest.mark.parametrize("change", [b"", b"\x00"], ids=["short", "long"])
def test_a_file_of_another_size_is_one_line(monkeypatch, tmp_path, change):
    shrink(monkeypatch)
    path = write_cifar(tmp_path, "cifar10") / "data_batch_3.bin"
    path.write_bytes(path.read_bytes() + change if change else path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"data_batch_3.bin: 307,\d+ bytes where 307,300 are due"):
        load_cifar10(str(tmp_path))


def test_a_missing_file_and_a_wrong_label(monkeypatch, tmp_path):
    shrink(monkeypatch)
    folder = write_cifar(tmp_path, "cifar10")
    path = folder / "test_batch.bin"
    raw = bytearray(path.read_bytes())
    raw[3073] = 10
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match="label 10 of 10 classes"):
        load_cifar10(str(tmp_path))
    path.unlink()
    with pytest.raises(UserError, match=r"cannot be read \(.*test_batch.bin'\); fetch it again"):
        load_cifar10(str(tmp_path))


def test_another_archive_is_one_line(monkeypatch, tmp_path):
    shrink(monkeypatch)
    write_cifar(tmp_path, "cifar10")
    path = pack(monkeypatch, tmp_path, "cifar10")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"not the published cifar-10-binary.tar.gz \(MD5"):
        load_cifar10(str(tmp_path))
    # Its digest is as published, but it is no archive.
    path.write_bytes(b"<html>404</html>")
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(ARCHIVES, "cifar10", dataclasses.replace(ARCHIVES["cifar10"], md5=digest))
    with pytest.raises(UserError, match="cannot be read"):
        load_cifar10(str(tmp_path))


def test_it_is_downloaded_when_absent(monkeypatch, tmp_path):
    shrink(monkeypatch)
    write_cifar(tmp_path / "made", "cifar100")
    made = pack(monkeypatch, tmp_path / "made", "cifar100")
    asked = []

    def fetch(url, target, progress):
        asked.append(url)
        shutil.copy(made, target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        assert len(load_cifar100(str(tmp_path / "new" / "root"))[0]) == 100
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"]


def test_without_a_network_the_line_says_what_to_put_where(tmp_path):
    with pytest.raises(UserError, match=r"no network.*put it into .*none yourself, from https://") as caught:
        load_cifar10(str(tmp_path / "none"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "none").exists()


class Evil:
    def __reduce__(self):
        return print, ("a pickle has run",)


def test_the_pickled_version_is_never_opened(tmp_path, capsys):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"coprune opens no pickle.*cifar-10-binary.tar.gz"):
        load_cifar10(str(tmp_path))
    assert "has run" not in capsys.readouterr().out
