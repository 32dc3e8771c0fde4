"""Transformers and texts through the command line, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import coprune as package
import texts
from coprune.pipeline.train import TrainJob, train
from coprune.plan import Plan
from coprune.training import Recipe


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviews")
    return f"tsv:{texts.tiny_tsv(folder / 'reviews.tsv', rows=600, classes=3)}"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, reviews):
    """A tiny trained BERT as a run folder."""
    folder = tmp_path_factory.mktemp("encoder")
    made = texts.tiny_text_model(folder / "fresh", classes=3, layers=2, heads=4, hidden=32)
    recipe = Recipe(epochs=6, batch_size=16, lr=3e-3, optimizer="adamw", schedule="linear")
    score = train(TrainJob(model=f"hf:{made}", data=reviews, recipe=recipe, threads=1), out=folder / "run")
    assert score.value > 0.95
    return folder / "run"


def result_of(run):
    return json.loads((run / "result.json").read_text())


def values(run):
    return {stage["name"]: stage["value"] for stage in result_of(run)["stages"]}


def test_half_the_macs_of_heads_and_neurons_go_without_training(coprune, encoder, reviews, tmp_path):
    run = tmp_path / "run"
    ended = coprune("prune", "--model", encoder, "--data", reviews, "--keep-macs", 0.5, "--calibration", 150,
                    "--latency-batches", 1, "--out", run)  # fmt: skip
    assert ended.code == 0, ended.err
    base, *_, last = result_of(run)["stages"]
    assert 0.45 < last["macs"] / base["macs"] <= 0.5
    found = values(run)
    assert found["base"] > 0.95
    assert found["recovered"] >= found["base"] - 0.05
    plan = Plan.load(run / "plan.json")
    assert {g.name.rsplit(".", 1)[-1] for g in plan.groups} == {"self", "dense"}
    # A normal transformers model comes back, with its tokenizer beside it.
    from transformers import AutoTokenizer, BertForSequenceClassification

    model = package.load(run)
    assert type(model) is BertForSequenceClassification
    read = AutoTokenizer.from_pretrained(run)(["one two"], return_tensors="pt")
    with torch.no_grad():
        wanted = model(**read).logits
    assert wanted.shape == (1, 3)
    # Another process has nothing but the folder.
    code = (
        "import sys, torch, coprune\n"
        "from transformers import AutoTokenizer\n"
        "model = coprune.load(sys.argv[1])\n"
        "read = AutoTokenizer.from_pretrained(sys.argv[1])(['one two'], return_tensors='pt')\n"
        "with torch.no_grad(): print(model(**read).logits.tolist())\n"
    )
    told = subprocess.run([sys.executable, "-c", code, run], check=True, capture_output=True, text=True)
    assert torch.equal(torch.tensor(json.loads(told.stdout)), wanted)
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    "method", ["complementary", "cahp", "michel", "medoid", "last_layers", "head_magnitude", "random"]
)
def test_half_the_heads_and_nothing_else(coprune, encoder, reviews, tmp_path, method):
    run = tmp_path / "run"
    ended = coprune("prune", "--model", encoder, "--data", reviews, "--method", method, "--keep-heads", 0.5,
                    "--calibration", 150, "--latency-batches", 1, "--out", run)  # fmt: skip
    assert ended.code == 0, ended.err
    assert result_of(run)["units"] == {"total": 8, "kept": 4}
    plan = Plan.load(run / "plan.json")
    assert all(g.name.endswith("self") for g in plan.groups)
    assert {g.kind for g in plan.groups} == {"heads"}
    assert plan.joint == (method not in ("complementary", "random"))
    assert "kept 4 of 8 heads" in (run / "report.html").read_text()
    assert all(g.kept for g in plan.groups)
    left = {s.layer: s.reason for s in plan.skipped}
    assert "only heads are removed" in left["bert.encoder.layer.0.intermediate.dense"]


def test_cahp_without_a_budget_stops_at_its_knee(coprune, encoder, reviews, tmp_path):
    run = tmp_path / "run"
    ended = coprune("prune", "--model", encoder, "--data", reviews, "--method", "cahp", "--calibration", 150,
                    "--latency-batches", 1, "--out", run)  # fmt: skip
    assert ended.code == 0, ended.err
    first = Plan.load(run / "plan.json").groups[0]
    assert first.knee is not None
    assert "silhouette" in first.curve_name
    assert f"the knee says {first.knee.k} of 8 units" in ended.out
    looked = coprune("inspect", run)
    assert looked.out.count(f"the knee says {first.knee.k} of 8 units") == 1


def test_rivals_at_the_same_cost(coprune, encoder, reviews, tmp_path):
    out = tmp_path / "cmp"
    methods = "complementary,magnitude,random"
    ended = coprune("compare", "--model", encoder, "--data", reviews, "--methods", methods,
                    "--keep-macs", "0.6", "--seeds", 1, "--calibration", 150, "--out", out)  # fmt: skip
    assert ended.code == 0, ended.err
    rows = json.loads((out / "compare.json").read_text())["rows"]
    assert len(rows) == 3
    assert all(0.5 < row["macs_ratio"] <= 0.6 for row in rows)


def test_head_methods_at_the_same_number_of_heads(coprune, encoder, reviews, tmp_path):
    out = tmp_path / "cmp"
    typed = ["compare", "--model", encoder, "--data", reviews, "--methods", "complementary,cahp,michel",
             "--seeds", 1, "--calibration", 150, "--out", out]  # fmt: skip
    ended = coprune(*typed, "--keep-heads", "0.5,knee")
    assert ended.code == 0, ended.err
    rows = json.loads((out / "compare.json").read_text())["rows"]
    assert [row["kept"] for row in rows if row["budget"] == 0.5] == [4, 4, 4]
    page = (out / "compare.html").read_text()
    assert "Accuracy against heads" in page
    assert "of the heads" in page
    assert len(rows) == 6
    ended = coprune(*typed, "--keep-heads", "0.5", "--keep-macs", "0.5", "--overwrite")
    assert (ended.code, "not both" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--method", "cosep", "--keep-heads", "0.5", "--overwrite"], "chooses channels, not heads"),
        (["--method", "cahp", "--units", "neurons"], "chooses heads, not neurons"),
        (["--keep-heads", "0.1"], "one in each of 2 groups"),
        (["--method", "fpgm", "--keep-macs", "0.5"], "only channels are removed"),
        (["--units", "toes", "--keep-macs", "0.5"], "units"),
    ],
)
def test_bad_input_gets_one_line(coprune, encoder, reviews, tmp_path, typed, said):
    ended = coprune("prune", "--model", encoder, "--data", reviews, "--calibration", 150, *typed,
                    "--out", tmp_path / "run")  # fmt: skip
    assert ended.code == 2
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_keep_heads_of_a_network_without_any(coprune, base, digits, tmp_path):
    ended = coprune(
        "prune", "--model", base, "--data", digits, "--keep-heads", 0.5, "--out", tmp_path / "run"
    )
    assert ended.code == 2
    assert "only heads are removed" in ended.err
