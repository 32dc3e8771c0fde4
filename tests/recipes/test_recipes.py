"""Every file in recipes/: its options exist, its names resolve, it is in the table, and some run whole."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

import texts
from coprune.cli.run import arguments_of
from coprune.data.glue import ENTAILMENTS
from coprune.data.names import LOADERS, TEXT_LOADERS
from coprune.errors import UserError
from coprune.methods.registry import find_method, method_settings
from coprune.models.hf import place_of
from coprune.models.hubs import split_tag
from coprune.models.registry import accepted_arguments
from coprune.pipeline.jobs import CalibratedJob, Job
from coprune.pipeline.opening import open_both
from coprune.pipeline.settings import check_settings
from coprune.result import Stage
from coprune.tracing.forward import check_takes
from images import shrink, write_cifar, write_folders

HOME = Path(__file__).parents[2]
RECIPES = sorted((HOME / "recipes").glob("*.toml"))
NAMES = [path.stem for path in RECIPES]
MINE = {"sst5": "sst5:data/sst5", "mnli": "mnli:data/MNLI", "imagenet": "imagefolder:data/imagenet"}


@pytest.fixture
def asked(monkeypatch, coprune):
    """Run a recipe up to where the work would start; what it would have done, and where."""

    def parse(path, *more):
        found = []

        def take(job, *, out, **_):
            found.append((job, out))
            return Stage(name="base", value=0.5, samples=10, macs=1, params=1)

        # What a recipe reads lies on no test machine.
        monkeypatch.setattr("coprune.pipeline.jobs.check_there", lambda _: None)
        monkeypatch.setattr("coprune.pipeline.train.train", take)
        monkeypatch.setattr("coprune.pipeline.prune.run_prune", take)
        monkeypatch.setattr("coprune.cli.prune.summarise", lambda *_: None)
        ended = coprune("run", path, *more)
        assert ended.code == 0, ended.err
        ((job, out),) = found
        return job, out

    return parse


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_says_what_its_name_says(asked, path):
    kind, *what = path.stem.split("-")
    job, out = asked(path)
    assert out == Path("recipes/runs") / path.stem
    data = next(part for part in what if part in ("cifar10", "cifar100", "imagenet", "sst5", "mnli"))
    assert job.data == MINE.get(data, data)
    assert job.data.partition(":")[0] in {**LOADERS, **TEXT_LOADERS}
    name, tag = split_tag(job.model)
    if kind == "base":
        assert arguments_of(path)[0] == "train"
    else:
        assert job.settings.method == kind
        method = find_method(kind)
        method_settings(method, job.settings.options)
        check_settings(job.settings)
        assert job.settings.schedule == ("layerwise" if kind == "cosep" else "oneshot")
    if name.startswith("recipes/runs/"):
        # The base has a recipe of its own, on the same data, and leaves it where this one looks.
        base, left = asked(path.with_name(f"{Path(name).name}.toml"))
        assert (str(left), base.data) == (name, job.data)
    elif name.startswith("hf:"):
        assert place_of(name) == name.removeprefix("hf:")
    else:
        assert "num_classes" in accepted_arguments(name, {"num_classes": 10})
        assert (tag is None) == name.startswith("coprune:")


def test_typed_options_win_over_the_files(asked):
    path = HOME / "recipes" / "cosep-vgg16-cifar10.toml"
    job, out = asked(path, "--data", "cifar10:/data", "--out", "run", "--keep-macs", 0.386, "--seed", 3)
    assert (job.data, str(out), job.settings.seed) == ("cifar10:/data", "run", 3)
    assert job.settings.budget.keep_macs == 0.386
    assert job.settings.between.lr == 0.01  # as the file says


def test_a_typed_option_that_does_not_exist_is_one_line(coprune):
    ended = coprune("run", HOME / "recipes" / "cosep-vgg16-cifar10.toml", "--no-such-option", 1)
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert "--no-such-option" in ended.err


def test_the_table_has_every_recipe():
    table = (HOME / "docs" / "recipes.md").read_text()
    rows = re.findall(r"^\| `((?:cosep|cahp)-[^`]+)` \| `?([^`|]+)`? \|.*\| (\S+) \|$", table, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == [n for n in NAMES if not n.startswith("base-")]
    assert {base for _, base, _ in rows if base.startswith("base-")} == {
        n for n in NAMES if n.startswith("base-")
    }
    for name, _, reproduced in rows:
        comment = (HOME / "recipes" / f"{name}.toml").read_text().splitlines()[0]
        published = re.search(r"\d\d\.\d+ → \d\d\.\d+", comment)
        # One figure, written twice.
        line = next(line for line in table.splitlines() if f"`{name}`" in line and line.startswith("|"))
        assert (published is None) == ("| – |" in line)
        assert published is None or published[0] in line
        assert reproduced == "no"


def write_sst5(root):
    """Trees of which the root's label is told by a word."""
    root.mkdir()
    draw = random.Random(0)
    for part, count in (("train", 120), ("dev", 20), ("test", 40)):
        lines = [
            f"({label} " + " ".join(f"(2 {word})" for word in texts.sentence(draw, label).split()) + ")"
            for label in (row % 5 for row in range(count))
        ]
        (root / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return f"sst5:{root}"


def write_mnli(root):
    root.mkdir()
    draw = random.Random(0)
    for part, count in (("train", 60), ("dev_matched", 30)):
        rows = ["sentence1\tsentence2\tgold_label"] + [
            f"{texts.sentence(draw, row % 3)}\t{texts.sentence(draw, 5)}\t{ENTAILMENTS[row % 3]}"
            for row in range(count)
        ]
        (root / f"{part}.tsv").write_text("\n".join(rows) + "\n")
    return f"mnli:{root}"


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem.startswith("base-")], ids=lambda p: p.stem)
def test_a_base_takes_its_data(monkeypatch, tmp_path, asked, path):
    job, _ = asked(path)
    head = job.data.partition(":")[0]
    arguments = {}
    if head in TEXT_LOADERS:
        model = f"hf:{texts.tiny_text_model(tmp_path / 'bert', classes=5)}"
        data = (write_sst5 if head == "sst5" else write_mnli)(tmp_path / head)
    else:
        shrink(monkeypatch, train=200, heldout=100)
        write_cifar(tmp_path, head)
        model, data, arguments = job.model, f"{head}:{tmp_path}", {"width": 2}
    network, opened = open_both(Job(model=model, data=data, arguments=arguments), seed=0)
    inputs, _ = next(iter(opened.heldout.batches(4)))
    check_takes(network, inputs)
    assert opened.classes == {"cifar10": 10, "cifar100": 100, "sst5": 5, "mnli": 3}[head]


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_the_imagenet_rows_take_folders(monkeypatch, tmp_path, name):
    pytest.importorskip("torchvision")
    root = write_folders(tmp_path / "imagenet")
    asked = {"data": f"imagefolder:{root}@64", "calibration": 6}
    network, opened = open_both(CalibratedJob(model=f"torchvision:{name}", **asked), seed=0)
    inputs, _ = next(iter(opened.heldout.batches(2)))
    check_takes(network, inputs)
    # The published weights are not there without a network: one line that says so.
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", _offline)
    with pytest.raises(UserError, match="check the network"):
        open_both(CalibratedJob(model=f"torchvision:{name}@IMAGENET1K_V1", **asked), seed=0)


def _offline(*_, **__):
    raise OSError("no network")


def stages(run):
    return {stage["name"]: stage for stage in json.loads((run / "result.json").read_text())["stages"]}


def test_a_cosep_row_from_its_base_to_its_result(monkeypatch, coprune, tmp_path):
    shrink(monkeypatch, train=80, heldout=100)
    write_cifar(tmp_path, "cifar10")
    where = ["--data", f"cifar10:{tmp_path}", "--threads", 1]
    base, run = tmp_path / "base", tmp_path / "run"
    ended = coprune("run", HOME / "recipes" / "base-vgg16-cifar10.toml", *where, "--out", base,
                    "--width", 3, "--epochs", 2, "--batch-size", 40)  # fmt: skip
    assert ended.code == 0, ended.err
    # Started again, a finished recipe says what it came to and trains nothing.
    monkeypatch.setattr("coprune.pipeline.train.fit", None)
    again = coprune("run", HOME / "recipes" / "base-vgg16-cifar10.toml", *where, "--out", base,
                    "--width", 3, "--epochs", 2, "--batch-size", 40)  # fmt: skip
    assert (again.code, again.out) == (0, ended.out)
    ended = coprune("run", HOME / "recipes" / "cosep-vgg16-cifar10.toml", *where, "--force", "--out", run,
                    "--model", base, "--between-epochs", 1, "--between-fraction", 0.1, "--calibration", 40,
                    "--latency-batches", 1)  # fmt: skip
    assert ended.code == 0, ended.err
    found = stages(run)
    assert found["pruned"]["macs"] < found["base"]["macs"]
    assert json.loads((run / "plan.json").read_text())["settings"]["schedule"] == "layerwise"


def test_a_cahp_row_from_its_base_to_its_result(coprune, tmp_path):
    pytest.importorskip("transformers")
    data = write_sst5(tmp_path / "sst5")
    fresh = texts.tiny_text_model(tmp_path / "bert", classes=5)
    where = ["--data", data, "--threads", 1]
    base, run = tmp_path / "base", tmp_path / "run"
    ended = coprune("run", HOME / "recipes" / "base-bert-base-sst5.toml", *where, "--out", base,
                    "--model", f"hf:{fresh}", "--lr", 3e-3)  # fmt: skip
    assert ended.code == 0, ended.err
    ended = coprune("run", HOME / "recipes" / "cahp-bert-large-sst5-47.toml", *where, "--force", "--out", run,
                    "--model", base, "--finetune-epochs", 1, "--latency-batches", 1, "--grid", 8)  # fmt: skip
    assert ended.code == 0, ended.err
    assert json.loads((run / "result.json").read_text())["units"] == {"total": 8, "kept": 4}
    assert "finetuned" in stages(run)
