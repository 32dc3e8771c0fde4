"""A file is there whole or not at all, whatever happens while it is written."""

import errno
import os

import pytest
import torch

import tiny
from coprune import files
from coprune.errors import UserError
from coprune.files import read_json, write_bytes, write_json
from coprune.store import save_model
from coprune.store.profile import load_profile, save_profile
from coprune.store.tensors import read_tensors, write_tensors


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def raising(error):
    def fail(*_):
        raise error

    return fail


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken disk"), KeyboardInterrupt()], ids=["disk", "ctrl-c"]
)
def test_a_broken_write_leaves_the_old_file_and_nothing_beside_it(monkeypatch, tmp_path, call, error):
    # BUG for Ctrl-C (files.py:35): only OSError cleans up; an interrupt leaves ".name.PID.tmp" behind.
    path = tmp_path / "plan.json"
    write_bytes(path, b"old")
    monkeypatch.setattr(files.os, call, raising(error))
    with pytest.raises((UserError, KeyboardInterrupt)):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["plan.json"]


def test_a_full_disk_is_said_with_the_size_and_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(files.os, "fsync", raising(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match="no free disk for 5,000 bytes; free some or choose another --out"):
        write_bytes(tmp_path / "weights", bytes(5000))
    assert names(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_really_full_device(monkeypatch, tmp_path):
    # A temporary file that leads to /dev/full: the kernel itself says ENOSPC.
    beside = tmp_path / f".x.{os.getpid()}.tmp"
    beside.symlink_to("/dev/full")
    with pytest.raises(UserError, match="no free disk"):
        write_bytes(tmp_path / "x", bytes(100))
    assert names(tmp_path) == []


def test_a_full_disk_while_a_model_is_saved_over_an_old_one(monkeypatch, tmp_path):
    save_model(tmp_path, tiny.network("resnet20", seed=0))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(files.os, "replace", raising(OSError(errno.ENOSPC, "full")))
    with pytest.raises(UserError, match="no free disk"):
        save_model(tmp_path, tiny.network("resnet20", seed=1))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_content_is_on_disk_before_the_name_is(monkeypatch, tmp_path):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_bytes(tmp_path / "x", b"content")
    assert order == ["fsync", "replace"]
    assert (tmp_path / "x").read_bytes() == b"content"


def test_folders_are_made_and_a_file_in_the_way_is_named(tmp_path):
    write_bytes(tmp_path / "a" / "b" / "c", b"x")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"
    with pytest.raises(UserError, match="cannot be written"):
        write_bytes(tmp_path / "a" / "b" / "c" / "d", b"x")


def test_json_refuses_nan_before_it_touches_the_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json", what="file") == {"a": 1}
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).view(2, 3).T,  # not contiguous
        torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        torch.tensor(3),
        torch.empty(0, 4),
        torch.randn(3).bfloat16(),
        torch.tensor([True, False]),
    ],
)
def test_any_tensor_comes_back_bit_for_bit(tmp_path, tensor):
    write_tensors(tmp_path / "x.safetensors", {"t": tensor})
    found = read_tensors(tmp_path / "x.safetensors", what="tensor")["t"]
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor)


def test_a_profile_comes_back_and_belongs_to_one_model_and_data(tmp_path):
    sizes = {"x": 2, "y": 1}
    statistics = {"a": {"x/mean": torch.randn(3, 2).double()}, "b": {"y": torch.ones(1)}}
    save_profile(tmp_path, statistics, model="m1", data="d1", groups=sizes)
    found = load_profile(tmp_path, model="m1", data="d1", groups=sizes)
    assert found.keys() == statistics.keys()
    assert all(tiny.same_state(found[k], statistics[k]) for k in statistics)
    with pytest.raises(UserError, match="another model"):
        load_profile(tmp_path, model="m2", data="d1", groups=sizes)
    with pytest.raises(UserError, match="another data"):
        load_profile(tmp_path, model="m1", data="d2", groups=sizes)
    assert load_profile(tmp_path, model="m1", data="d1", groups={"y": 1}).keys() == statistics.keys()
    for others in ({"x": 2, "z": 4}, {"y": 2, "x": 2}):
        with pytest.raises(UserError, match=r"without 1 of the 2 groups asked for \([yz]\); give --only"):
            load_profile(tmp_path, model="m1", data="d1", groups=others)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(UserError, match="no such statistic"):
        load_profile(tmp_path, model="m1", data="d1", groups=sizes)
    with pytest.raises(UserError, match="no such profile"):
        load_profile(tmp_path / "none", model="m1", data="d1", groups=sizes)
