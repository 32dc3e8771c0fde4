"""``coprune export`` and ``measure --engine`` as a user types them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import coprune as package
import texts
from coprune.export import check
from coprune.models.names import ModelSource
from coprune.models.registry import build, source_of
from coprune.store.model import save_model
from coprune.tracing.forward import logits_of
from digits import write_digits

ort = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A network for a tiny archive whose layers are of uneven sizes, and the archive."""
    from coprune.budget.counts import Budget
    from coprune.pipeline.jobs import PruneJob
    from coprune.pipeline.prune import run_prune
    from coprune.pipeline.settings import PruneSettings

    folder = tmp_path_factory.mktemp("world")
    archive = write_digits(folder / "digits.npz")
    settings = PruneSettings(
        method="magnitude",
        budget=Budget(keep_macs=0.5),
        recovery="bn",
        latency_batches=(1,),
        threads=1,
        force=True,
    )
    job = PruneJob(
        model="python:tiny:resnet8", trust=True, data=f"npz:{archive}", calibration=40, settings=settings
    )  # fmt: skip
    return run_prune(job, out=folder / "run"), archive


@pytest.fixture
def coprune(coprune):
    """Commands about a run whose model is tests' own."""
    return lambda *typed: coprune(*typed, "--trust")


@pytest.fixture
def run(world, tmp_path):
    return shutil.copytree(world[0], tmp_path / "run")


def session(path):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_both_formats_on_real_samples(coprune, run, world):
    before = {p.name for p in run.iterdir()}
    ended = coprune("export", run, "--onnx", "--torch-export")
    assert ended.code == 0, ended.err
    assert {p.name for p in run.iterdir()} - before == {"model.onnx", "model.pt2"}
    assert ended.out.count(f"held-out samples of npz:{world[1]}") == 2
    images = torch.from_numpy(np.load(world[1])["x_test"][:7]).float() / 255
    with torch.no_grad():
        wanted = package.load(run, trust=True)(images)
    found = session(run / "model.onnx").run(None, {"images": images.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-4)
    program = torch.export.load(run / "model.pt2").module()
    assert torch.allclose(program(images), wanted, atol=1e-4)


def test_without_its_data_noise_of_the_noted_shape_is_compared(coprune, run, world, tmp_path):
    described = json.loads((run / "model.json").read_text())
    assert described["notes"]["reads"] == {"": [1, 12, 12]}
    described["notes"]["data"] = "npz:/nowhere.npz"
    (run / "model.json").write_text(json.dumps(described))
    out = tmp_path / "elsewhere" / "net.onnx"
    ended = coprune("export", run, "--onnx", "--out", out)
    assert ended.code == 0, ended.err
    assert "noise; /nowhere.npz: no such file" in ended.out
    assert session(out).get_inputs()[0].shape == ["batch", 1, 12, 12]
    # Data that was asked for is not replaced by noise.
    ended = coprune("export", run, "--onnx", "--data", "npz:/nowhere.npz")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert "no such file" in ended.err


def test_nothing_is_written_unless_it_agrees(coprune, run, monkeypatch):
    monkeypatch.setattr(check, "TOLERANCE", -1.0)
    ended = coprune("export", run, "--onnx")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert "nothing was written" in ended.err
    assert not list(run.glob("*.onnx*"))
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([], "give --onnx, --torch-export or both"),
        (["--onnx", "--torch-export", "--out", "x"], "--out names one file"),
        (["--onnx", "--input-shape", "1,x"], "--input-shape"),
        (["--onnx", "--input-shape", "3,12,12"], "does not take inputs"),
    ],
)
def test_bad_input_is_one_line(coprune, run, typed, words):
    ended = coprune("export", run, *typed)
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert words in ended.err
    assert not (run / "model.onnx").exists()


def test_a_model_of_which_nothing_is_known(coprune, tmp_path):
    save_model(tmp_path, build(ModelSource("coprune:resnet20", {"width": 2})))
    ended = coprune("export", tmp_path, "--torch-export")
    assert ended.code == 2
    assert "give --data or --input-shape" in ended.err
    ended = coprune("export", tmp_path, "--torch-export", "--input-shape", "3,16,16")
    assert ended.code == 0, ended.err
    assert "(noise)" in ended.out


def test_a_text_model_with_its_own_samples_and_with_noise(coprune, tmp_path):
    pytest.importorskip("transformers")
    made = texts.tiny_text_model(tmp_path / "fresh")
    data = f"tsv:{texts.tiny_tsv(tmp_path / 'reviews.tsv')}"
    run = tmp_path / "run"
    ended = coprune("prune", "--model", f"hf:{made}", "--data", data, "--method", "magnitude",
                    "--keep-macs", 0.5, "--recovery", "none", "--force", "--calibration", 40,
                    "--latency-batches", 1, "--out", run)  # fmt: skip
    assert ended.code == 0, ended.err
    assert set(json.loads((run / "model.json").read_text())["notes"]["reads"]) == {
        "input_ids", "attention_mask", "token_type_ids"
    }  # fmt: skip
    ended = coprune("export", run, "--onnx")
    assert ended.code == 0, ended.err
    assert "held-out samples" in ended.out
    model, onnx = package.load(run), session(run / "model.onnx")
    for rows, width in ((1, 4), (5, 17)):
        ids = torch.randint(4, 20, (rows, width))
        batch = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "token_type_ids": torch.zeros_like(ids),
        }
        with torch.no_grad():
            wanted = logits_of(model, batch)
        found = onnx.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]
        assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-4)
    (tmp_path / "reviews.tsv").unlink()
    ended = coprune("export", run, "--torch-export")
    assert ended.code == 0, ended.err
    assert "noise; " in ended.out


def test_measure_with_two_engines(coprune, run, world):
    before = json.loads((run / "result.json").read_text())
    ended = coprune("measure", run, "--data", f"npz:{world[1]}", "--engine", "torch,onnxruntime",
                    "--latency-batches", "1,3", "--threads", 1)  # fmt: skip
    assert ended.code == 0, ended.err
    assert "batch 3, 1 threads, onnxruntime on cpu" in ended.out
    after = json.loads((run / "result.json").read_text())
    assert [(e["engine"], e["batch"]) for e in after["latency"]] == [
        ("torch", 1), ("torch", 3), ("onnxruntime", 1), ("onnxruntime", 3)
    ]  # fmt: skip
    assert all(e["pruned_ms"] > 0 and e["ratio"] > 0 and e["repeats"] >= 5 for e in after["latency"])
    # Timed anew: replaced, not added. Everything else is as it was.
    assert after["latency"][0] != before["latency"][0]
    assert {k: v for k, v in after.items() if k != "latency"} == {
        k: v for k, v in before.items() if k != "latency"
    }
    assert "ONNX Runtime" in (run / "report.html").read_text()


def test_an_unknown_engine_is_one_line(coprune, run):
    ended = coprune("measure", run, "--input-shape", "1,12,12", "--engine", "onnxruntim")
    assert (ended.code, ended.out) == (2, "")
    assert "did you mean onnxruntime" in ended.err


def test_a_base_model_can_be_exported(coprune, base, tmp_path):
    ended = coprune("export", base, "--torch-export", "--out", tmp_path / "base.pt2")
    assert ended.code == 0, ended.err
    assert source_of(package.load(base)).name == "coprune:resnet20"


WORDS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.rnn = nn.Embedding(30, 12), nn.LSTM(12, 16, batch_first=True, bidirectional=True)
        self.mid, self.last = nn.Linear(32, 24), nn.Linear(24, 3)

    def forward(self, ids):
        forth, back = self.rnn(self.words(ids))[1][0]
        return self.last(self.mid(torch.cat([forth, back], 1)).relu())

def model():
    torch.manual_seed(0)
    return Reads()

def data():
    ids = torch.randint(0, 30, (160, 9), generator=torch.Generator().manual_seed(0))
    parts = TensorDataset(ids[:120], ids[:120, 0] % 3), TensorDataset(ids[120:], ids[120:, 0] % 3)
    return tuple(DataLoader(part, 20) for part in parts)
"""


def test_a_network_of_ones_own_that_reads_words(coprune, tmp_path, monkeypatch):
    # Once: "Expected tensor for argument #1 'indices' to have one of the following scalar types".
    (tmp_path / "reading.py").write_text(WORDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    named = ("--model", "python:reading:model", "--data", "python:reading:data", "--out", "run")
    cheap = ("--method", "magnitude", "--keep-macs", 0.6, "--latency-batches", 1, "--force")
    ended = coprune("prune", *named, *cheap)
    assert ended.code == 0, ended.err
    notes = json.loads((tmp_path / "run" / "model.json").read_text())["notes"]
    assert (notes["reads"], list(notes["reads_whole_numbers"])) == ({"": [9]}, [""])
    assert 20 < notes["reads_whole_numbers"][""] < 30
    ended = coprune("export", "run", "--trust", "--onnx", "--torch-export")
    assert ended.code == 0, ended.err
    assert ended.out.count("(noise; the run names no data)") == 2
    ids = torch.randint(0, 30, (5, 9))
    with torch.no_grad():
        wanted = package.load("run", trust=True)(ids)
    found = session(tmp_path / "run" / "model.onnx").run(None, {"input": ids.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-4)
