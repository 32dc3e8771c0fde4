"""The default method as a user types it: what it decides, searches, writes and hands back."""

from __future__ import annotations

import json

import pytest
import torch

import coprune as package
from coprune.pipeline.context import Context
from coprune.plan import Plan
from coprune.result import Result
from digits import write_digits

PROBE = {"macs", "value", "drop", "low", "high", "ok", "chosen"}


@pytest.fixture
def prune(coprune, small_base, digits):
    """``coprune prune`` of the small network on its data, quickly."""

    def run(out, *more, data=digits):
        return coprune("prune", "--model", small_base, "--trust", "--data", data, "--latency-batches", "1",
                       "--threads", 1, "--out", out, *more)  # fmt: skip

    return run


@pytest.fixture(scope="module")
def hard(tmp_path_factory) -> str:
    """Like ``digits``, with one label in four wrong: accuracy falls with the size, if not steadily."""
    import numpy as np

    rng = np.random.default_rng(1)
    labels = {}
    for part, count in (("y_train", 480), ("y_test", 240)):
        y = np.arange(count) % 4
        wrong = rng.random(count) < 0.25
        labels[part] = np.where(wrong, rng.integers(0, 4, count), y).astype(np.int64)
    return f"npz:{write_digits(tmp_path_factory.mktemp('hard') / 'hard.npz', n=480, **labels)}"


def test_without_a_method_it_is_complementary(prune, tmp_path, hard):
    ended = prune(tmp_path / "run", "--keep-macs", 0.3, data=hard)
    assert ended.code == 0, ended.err
    plan, result = Plan.load(tmp_path / "run" / "plan.json"), Result.load(tmp_path / "run" / "result.json")
    assert plan.method == result.method == "complementary"
    assert (plan.settings["allocation"], plan.settings["recovery"]) == ("measured", "least-squares")
    assert [s.name for s in result.stages] == ["base", "pruned", "recovered"]
    assert result.stage("recovered").macs <= 0.3 * result.stage("base").macs
    assert result.stage("recovered").calibration > result.stage("pruned").calibration
    assert result.search == ()
    for group in plan.groups:
        removed = sorted(set(range(group.size)) - set(group.kept))
        assert [t.unit for t in group.predicted] == removed
        assert group.curve_name == "share of the consumers' output lost"
        assert [k for k, _ in group.curve] == list(range(1, group.size + 1))
        lost = [loss for _, loss in group.curve]
        assert lost == sorted(lost, reverse=True)
        assert len(group.position) == group.size
        for one in group.predicted:
            assert {unit for unit, _ in one.by} <= set(group.kept)
            assert 0 <= one.explained <= 1
            assert sum(part for _, part in one.by) <= one.explained + 5e-4  # rounded one by one
    assert any(t.explained > 0 for g in plan.groups for t in g.predicted)
    # A reader of the JSON finds them without the package.
    written = json.loads((tmp_path / "run" / "plan.json").read_text())["groups"]
    assert any(group["predicted"] for group in written)
    assert "complementary" in ended.out


def test_largest_loss_is_searched(prune, tmp_path, hard):
    ended = prune(tmp_path / "run", "--max-drop", 8, data=hard)
    assert ended.code == 0, ended.err
    result = Result.load(tmp_path / "run" / "result.json")
    assert all(probe.keys() == PROBE for probe in result.search)
    (chosen,) = [p for p in result.search if p["chosen"]]
    assert chosen["ok"]
    assert chosen["macs"] == min(p["macs"] for p in result.search if p["ok"])
    assert result.stages[-1].macs / result.stages[0].macs == pytest.approx(chosen["macs"], abs=1e-5)
    assert result.search[0] == {
        "macs": 1, "value": pytest.approx(result.search[0]["value"]), "drop": 0, "low": 0, "high": 0,
        "ok": True, "chosen": chosen is result.search[0],
    }  # fmt: skip
    for probe in result.search:
        assert probe["low"] <= probe["drop"] <= probe["high"]
        assert probe["drop"] == pytest.approx(100 * (result.search[0]["value"] - probe["value"]), abs=1e-3)
        assert not probe["ok"] or probe["drop"] <= 8
    assert Plan.load(tmp_path / "run" / "plan.json").budget == "max_drop=8"


def test_no_budget_takes_the_knee_of_the_recovered_curve(prune, tmp_path, hard):
    ended = prune(tmp_path / "run", data=hard)
    assert ended.code == 0, ended.err
    result = Result.load(tmp_path / "run" / "result.json")
    shares = [p["macs"] for p in result.search]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert len(shares) >= 5
    (chosen,) = [p for p in result.search if p["chosen"]]
    assert result.stages[-1].macs / result.stages[0].macs == pytest.approx(chosen["macs"], abs=1e-5)
    assert any(note.startswith("the knee of recovered accuracy over MACs: ") for note in result.notes)
    plan = Plan.load(tmp_path / "run" / "plan.json")
    assert plan.budget == "knee"
    assert all(group.knee is None for group in plan.groups)
    # The judging samples had no part in the statistics.
    assert plan.data["statistics"] == plan.data["fingerprint"] + "-half0"


def test_parameters_are_kept_within_one_unit(prune, small_base, digits, tmp_path):
    from coprune.data import load_data

    assert prune(tmp_path / "run", "--keep-params", 0.5).code == 0
    result, plan = Result.load(tmp_path / "run" / "result.json"), Plan.load(tmp_path / "run" / "plan.json")
    assert plan.budget == "keep_params=0.5"
    assert result.stages[-1].params <= 0.5 * result.stages[0].params
    assert result.stages[-1].params == sum(
        p.numel() for p in package.load(tmp_path / "run", trust=True).parameters()
    )
    cost = Context.of(package.load(small_base, trust=True), load_data(digits), device="cpu").cost
    counts = {g.name: len(g.kept) for g in plan.groups}
    for name, size in cost.sizes.items():
        more = cost.ratio({**counts, name: counts[name] + 1}, "params")
        assert counts[name] == size or more > 0.5


def test_a_latency_that_everything_meets_keeps_everything(prune, tmp_path):
    ended = prune(tmp_path / "run", "--latency-ms", 1e5)
    assert ended.code == 0, ended.err
    result = Result.load(tmp_path / "run" / "result.json")
    assert result.units["kept"] == result.units["total"]
    assert any("ms a sample when it was chosen" in note for note in result.notes)
    assert any("keeps every unit" in note for note in result.notes)
    assert Plan.load(tmp_path / "run" / "plan.json").budget == "latency_ms=100000"


def test_a_latency_in_between_is_met_on_a_clock_that_counts_macs(prune, tmp_path, monkeypatch, example):
    from coprune.measure import count_macs

    timed = []

    def by_macs(model, *_, **__):
        timed.append(count_macs(model, example) / 1e5)
        return timed[-1]

    monkeypatch.setattr("coprune.pipeline.search.median_ms", by_macs)
    assert prune(tmp_path / "run", "--latency-ms", 0.7).code == 0
    result = Result.load(tmp_path / "run" / "result.json")
    assert timed[0] == result.stages[0].macs / 1e5 > 0.7
    assert result.stages[-1].macs / 1e5 == max(ms for ms in timed if ms <= 0.7)
    assert result.stages[-1].macs / 1e5 > 0.6


def test_recovery_is_the_users_choice_for_every_method(prune, tmp_path):
    for recovery, stages in (("least-squares", 3), ("reconstruction", 3), ("bn", 3), ("none", 2)):
        out = tmp_path / recovery
        assert prune(out, "--method", "magnitude", "--recovery", recovery, "--keep-macs", 0.5).code == 0
        assert len(Result.load(out / "result.json").stages) == stages
        assert Plan.load(out / "plan.json").settings["recovery"] == recovery
    plans = [Plan.load(tmp_path / r / "plan.json").groups for r in ("least-squares", "bn", "none")]
    assert plans[0] == plans[1] == plans[2]
    values = {r: Result.load(tmp_path / r / "result.json").stages for r in ("least-squares", "bn", "none")}
    assert len({stages[1].value for stages in values.values()}) == 1
    assert values["least-squares"][2].calibration >= values["none"][1].calibration


@pytest.mark.parametrize(
    ("method", "allocation", "recovery"),
    [
        ("cosep", "uniform", "bn"),
        ("magnitude", "uniform", "least-squares"),
        ("random", "uniform", "least-squares"),
    ],
)
def test_what_auto_stands_for(prune, tmp_path, method, allocation, recovery):
    assert prune(tmp_path / "run", "--method", method, "--keep-macs", 0.5).code == 0
    settings = Plan.load(tmp_path / "run" / "plan.json").settings
    assert (settings["allocation"], settings["recovery"]) == (allocation, recovery)


def test_uniform_allocation_keeps_the_same_share_of_every_group(prune, tmp_path):
    assert prune(tmp_path / "run", "--allocation", "uniform", "--keep-macs", 0.5).code == 0
    plan = Plan.load(tmp_path / "run" / "plan.json")
    assert plan.settings["allocation"] == "uniform"
    shares = [len(g.kept) / g.size for g in plan.groups]
    assert max(shares) - min(shares) <= 2 / min(g.size for g in plan.groups)


@pytest.mark.parametrize(
    "budget", [("--keep-params", "0.4"), ("--max-drop", "10"), ()], ids=["params", "drop", "knee"]
)
def test_same_seed_same_bytes(prune, tmp_path, hard, budget):
    for name in ("a", "b"):
        torch.manual_seed(len(name) + ord(name))  # what the process drew before does not matter
        assert prune(tmp_path / name, *budget, data=hard).code == 0
    for file in ("plan.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_resuming_a_finished_run_changes_nothing(prune, tmp_path):
    out = tmp_path / "run"
    assert prune(out, "--keep-macs", 0.5).code == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    ended = prune(out, "--keep-macs", 0.5, "--resume")
    assert ended.code == 0, ended.err
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before
    other = prune(out, "--keep-params", 0.5, "--resume")
    assert other.code == 2
    assert "other options" in other.err


@pytest.mark.parametrize(("option", "quantity"), [("--keep-macs", "macs"), ("--keep-params", "params")])
def test_layer_after_layer(prune, tmp_path, option, quantity):
    # Once a bug: the layerwise schedule did not know --keep-params and kept everything.
    ended = prune(tmp_path / "run", "--schedule", "layerwise", "--between-epochs", 1, option, 0.5)
    assert ended.code == 0, ended.err
    result, plan = Result.load(tmp_path / "run" / "result.json"), Plan.load(tmp_path / "run" / "plan.json")
    assert 0.3 < getattr(result.stages[1], quantity) / getattr(result.stages[0], quantity) <= 0.5
    assert [s.name for s in result.stages] == ["base", "pruned", "recovered"]
    assert plan.settings["recovery"] == "bn"
    assert plan.settings["allocation"] == "uniform"
    assert all(group.predicted for group in plan.groups if len(group.kept) < group.size)
    package.load(tmp_path / "run", trust=True)


def test_the_methods_own_options_reach_the_plan(prune, tmp_path):
    typed = ["--weighting", "none", "--scatter", 0.5, "--ridge", 0.01, "--places", 8, "--keep-macs", 0.5]
    assert prune(tmp_path / "run", *typed).code == 0
    settings = Plan.load(tmp_path / "run" / "plan.json").settings
    assert {"weighting": "none", "scatter": 0.5, "ridge": 0.01, "places": 8}.items() <= settings.items()
