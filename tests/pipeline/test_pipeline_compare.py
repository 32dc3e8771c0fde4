"""``coprune compare`` as a user types it: equal cost, equal recovery, every row there, resumable."""

from __future__ import annotations

import json

import pytest

from coprune.comparison import Comparison
from coprune.errors import UserError
from coprune.report.compare import lines
from coprune.result import TAKEN_BACK


@pytest.fixture
def compare(small_base, digits) -> list[object]:
    """What every command begins with."""
    return ["compare", "--model", small_base, "--trust", "--data", digits]


def test_rows_are_the_contract_and_cost_the_same(coprune, compare, tmp_path):
    out = tmp_path / "cmp"
    ended = coprune(
        *compare, "--methods", "random,cosep,magnitude", "--keep-macs",
        "knee,0.5", "--seeds", 2, "--recovery", "bn,none", "--finetune-epochs", 1, "--out", out,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    content = json.loads((out / "compare.json").read_text())
    assert content["schema"] == 1
    figures = {"value", "macs", "params", "samples", "constant"}
    assert figures | {"metric", "unit", "higher_is_better"} == content["base"].keys()
    rows = content["rows"]
    assert len(rows) == 3 * 2 * 2 * 2
    for row in rows:
        assert {
            "method",
            "budget",
            "seed",
            "macs_ratio",
            "pruned",
            "recovered",
            "finetuned",
            "recovery",
        } <= row.keys()
        assert (row["recovered"] is None) == (row["recovery"] == "none")
        assert row["finetuned"] is not None
    for seed in (0, 1):
        at_knee = {r["method"]: r["macs_ratio"] for r in rows if r["budget"] == "knee" and r["seed"] == seed}
        # Whole channels of a four-channel layer are coarse: rivals come as close below as one unit allows.
        assert at_knee["cosep"] * 0.85 <= at_knee["magnitude"] <= at_knee["cosep"] + 1e-9
    assert all(r["macs_ratio"] <= 0.5 for r in rows if r["budget"] == 0.5)
    same = [r for r in rows if r["method"] == "random" and r["seed"] == 0 and r["budget"] == 0.5]
    assert same[0]["pruned"] == same[1]["pruned"]
    for word in ("random", "cosep", "magnitude", "compare.json"):
        assert word in ended.out
    assert (out / "compare.html").is_file()
    assert {p.name for p in out.iterdir()} == {"job.json", "compare.json", "compare.html"}


def test_a_killed_comparison_goes_on_with_the_next_row(coprune, compare, tmp_path, monkeypatch):
    typed = [*compare, "--methods", "random,taylor",
             "--keep-macs", "0.5,0.3", "--seeds", 1, "--finetune-epochs", 1]  # fmt: skip
    assert coprune(*typed, "--out", tmp_path / "whole").code == 0
    import coprune.pipeline.context as module

    real, calls = module.fit, []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "fit", dies)
    assert coprune(*typed, "--out", tmp_path / "torn").code == 130
    assert not (tmp_path / "torn" / "compare.json").exists()
    assert coprune(*typed, "--out", tmp_path / "torn", "--resume").code == 0
    # Three calls before the interrupt (one of them lost), two after: no finished row is done again.
    assert len(calls) == 5

    def figures(name):
        rows = json.loads((tmp_path / name / "compare.json").read_text())["rows"]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    assert figures("torn") == figures("whole")


def test_a_seed_changes_the_random_choice(coprune, compare, tmp_path):
    out = tmp_path / "cmp"
    assert coprune(*compare, "--methods", "random", "--keep-macs", "0.3",
                   "--seeds", 3, "--recovery", "bn", "--out", out).code == 0  # fmt: skip
    rows = json.loads((out / "compare.json").read_text())["rows"]
    assert len({row["recovered"] for row in rows}) > 1


METHODS, RECOVERIES = ["complementary", "magnitude", "random"], ["none", "bn", "least-squares"]


def test_every_recovery_of_every_method_and_a_resumed_table_is_the_same(
    coprune, compare, tmp_path, monkeypatch
):
    typed = [
        *compare, "--methods", ",".join(METHODS), "--seeds", 1,
        "--keep-macs", "0.5,0.3", "--recovery", ",".join(RECOVERIES), "--threads", 1,
    ]  # fmt: skip
    ended = coprune(*typed, "--out", tmp_path / "whole")
    assert ended.code == 0, ended.err
    content = json.loads((tmp_path / "whole" / "compare.json").read_text())
    rows = {(r["method"], r["budget"], r["recovery"]): r for r in content["rows"]}
    assert rows.keys() == {(m, b, r) for m in METHODS for b in (0.5, 0.3) for r in RECOVERIES}
    for (method, budget, recovery), row in rows.items():
        assert row["finetuned"] is None
        assert row["seed"] == 0
        assert 0 < row["macs_ratio"] <= budget
        assert (row["recovered"] is None) == (recovery == "none")
        # The same cut network for every recovery.
        same = rows[method, budget, "none"]
        assert (row["pruned"], row["macs_ratio"], row["kept"]) == (
            same["pruned"],
            same["macs_ratio"],
            same["kept"],
        )
        assert 0 <= row["pruned"] <= 1
    import coprune.pipeline.context as module

    real, calls = module.find_recovery, []

    def dies(how):
        calls.append(how)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(how)

    monkeypatch.setattr(module, "find_recovery", dies)
    assert coprune(*typed, "--out", tmp_path / "torn").code == 130
    assert not (tmp_path / "torn" / "compare.json").exists()
    assert coprune(*typed, "--out", tmp_path / "torn", "--resume").code == 0
    assert len(calls) == len(rows) + 1
    again = json.loads((tmp_path / "torn" / "compare.json").read_text())["rows"]
    assert [{**r, "seconds": 0} for r in again] == [{**r, "seconds": 0} for r in content["rows"]]
    # A finished comparison is not made again.
    assert coprune(*typed, "--out", tmp_path / "torn", "--resume").code == 0
    assert len(calls) == len(rows) + 1


def test_a_method_takes_its_best_learning_rate_on_calibration_data(coprune, compare, tmp_path, monkeypatch):
    import coprune.pipeline.context as module

    real, calls = module.fit, []
    monkeypatch.setattr(module, "fit", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    typed = [*compare, "--methods", "random", "--keep-macs", "0.3",
             "--seeds", 2, "--recovery", "none", "--finetune-epochs", 2, "--batch-size", 16,
             "--finetune-lr", "1e-9,0.02", "--out", tmp_path / "cmp"]  # fmt: skip
    ended = coprune(*typed)
    assert ended.code == 0, ended.err
    rows = json.loads((tmp_path / "cmp" / "compare.json").read_text())["rows"]
    assert [row["rate"] for row in rows] == [0.02, 0.02]
    assert all(row["finetuned"] > row["pruned"] for row in rows)
    # Both rates with the first seed, the better one with the second.
    assert len(calls) == 3


@pytest.mark.parametrize(("rates", "rate"), [("1e30", None), ("1e30,0.02", 0.02)])
def test_a_rate_that_diverges_is_the_worst_and_costs_no_row(coprune, compare, tmp_path, rates, rate):
    # Once a bug: the whole comparison ended and its folder, with every finished row, was removed.
    ended = coprune(*compare, "--methods", "random", "--keep-macs", "0.3",
                    "--seeds", 2, "--recovery", "none,bn", "--finetune-epochs", 1, "--batch-size", 16,
                    "--finetune-lr", rates, "--out", tmp_path / "cmp")  # fmt: skip
    assert ended.code == 0, ended.err
    rows = json.loads((tmp_path / "cmp" / "compare.json").read_text())["rows"]
    assert len(rows) == 4
    note = "fine-tuning diverged at every learning rate tried (1e+30)"
    for row in rows:
        assert row["rate"] == rate
        assert (row["finetuned"] is None) == (rate is None)
        assert row["notes"] == ([] if rate else [note])
    said = f"random, budget 0.3, recovery bn, seed 1: {note}"
    assert (said in " ".join(ended.out.split())) == (rate is None)
    assert (said in (tmp_path / "cmp" / "compare.html").read_text()) == (rate is None)


@pytest.mark.parametrize("judged_on", ["judging", "accuracy, fine-tuned"])
def test_logits_that_are_nan_after_a_training_cost_no_row(coprune, compare, tmp_path, monkeypatch, judged_on):
    from coprune.measure import NotFiniteError, evaluate

    def measured(*args, label, **named):
        if label == judged_on:
            raise NotFiniteError("test")
        return evaluate(*args, label=label, **named)

    monkeypatch.setattr("coprune.pipeline.context.evaluate", measured)
    ended = coprune(*compare, "--methods", "random", "--keep-macs", "0.5",
                    "--seeds", 1, "--recovery", "none", "--finetune-epochs", 1, "--finetune-images", 32,
                    "--finetune-lr", "0.01,0.02", "--out", tmp_path / "cmp")  # fmt: skip
    assert ended.code == 0, ended.err
    (row,) = json.loads((tmp_path / "cmp" / "compare.json").read_text())["rows"]
    assert row["finetuned"] is None
    assert row["rate"] is None
    assert row["notes"] == ["fine-tuning diverged at every learning rate tried (0.01, 0.02)"]


def test_a_reconstruction_that_was_taken_back_is_said(coprune, compare, tmp_path, monkeypatch):
    import coprune.recovery.reconstruction as module
    from coprune.training import DivergedError

    def diverges(*_args, **_named):
        raise DivergedError("test")

    monkeypatch.setattr(module, "fit", diverges)
    ended = coprune(*compare, "--methods", "random", "--keep-macs", "0.3",
                    "--seeds", 1, "--recovery", "reconstruction", "--out", tmp_path / "cmp")  # fmt: skip
    assert ended.code == 0, ended.err
    (row,) = json.loads((tmp_path / "cmp" / "compare.json").read_text())["rows"]
    assert row["notes"] == [TAKEN_BACK]
    assert TAKEN_BACK in " ".join(ended.out.split())


def test_a_mistake_that_shows_late_leaves_finished_rows(coprune, compare, tmp_path, monkeypatch):
    import coprune.pipeline.context as module

    real, calls = module.cut, []

    def fails(*given):
        calls.append(1)
        if len(calls) == 2:
            raise UserError("no more")
        return real(*given)

    typed = [*compare, "--methods", "random", "--keep-macs", "0.5,0.3",
             "--seeds", 1, "--recovery", "none", "--out", tmp_path / "cmp"]  # fmt: skip
    monkeypatch.setattr(module, "cut", fails)
    ended = coprune(*typed)
    assert (ended.code, ended.err.strip()) == (2, "coprune: no more")
    assert len(list((tmp_path / "cmp" / "work" / "rows").iterdir())) == 1
    assert coprune(*typed, "--resume").code == 0
    assert len(calls) == 3


def test_with_a_uniform_allocation_every_group_keeps_its_share(coprune, compare, tmp_path):
    out = tmp_path / "cmp"
    methods = "complementary,magnitude"
    typed = [*compare, "--methods", methods, "--seeds", 1,
             "--keep-macs", "0.4", "--calibration", 200, "--out", out]  # fmt: skip
    assert coprune(*typed, "--allocation", "uniform").code == 0
    ours, theirs = json.loads((out / "compare.json").read_text())["rows"]
    assert (ours["macs_ratio"], ours["kept"]) == (theirs["macs_ratio"], theirs["kept"])
    ended = coprune(*typed, "--allocation", "knee", "--overwrite")
    assert ended.code == 2
    assert "allocation" in ended.err


def test_several_allocations_are_rows_of_one_table(coprune, compare, tmp_path):
    out = tmp_path / "cmp"
    ended = coprune(*compare, "--methods", "complementary,magnitude", "--keep-macs", "0.5", "--seeds", 2,
                    "--recovery", "none", "--allocation", "auto,uniform,measured", "--out", out)  # fmt: skip
    assert ended.code == 0, ended.err
    content = json.loads((out / "compare.json").read_text())
    # What an allocation comes to twice is one row.
    both = {(method, way) for method in ("complementary", "magnitude") for way in ("uniform", "measured")}
    rows = [(row["method"], row["allocation"]) for row in content["rows"]]
    assert set(rows) == both
    assert sorted(rows) == sorted([*both, *both])
    assert all(f"{method} " in ended.out and f" {way} " in ended.out for method, way in both)
    drawn = lines(Comparison.load(out / "compare.json"), "pruned", recovery="").data
    assert sorted(line.name.partition(" · ")[2] for line in drawn) == sorted(way for _, way in both)
    assert len({(line.name, line.line.dash) for line in drawn}) == 4
    again = coprune(
        *compare, "--methods", "random", "--allocation", "uniform,uniform", "--out", tmp_path / "x"
    )
    assert (again.code, "names one twice" in again.err) == (2, True)


def test_every_method_can_share_out_by_measurement_and_says_how_it_did(coprune, compare, tmp_path):
    typed = [*compare, "--methods", "complementary,random,magnitude", "--keep-macs", "0.5", "--seeds", 1]
    found = {}
    for allocation in ("auto", "measured", "uniform"):
        out = tmp_path / allocation
        ended = coprune(*typed, "--recovery", "none", "--allocation", allocation, "--out", out)
        assert ended.code == 0, ended.err
        rows = json.loads((out / "compare.json").read_text())["rows"]
        found[allocation] = {row["method"]: row for row in rows}
        assert all(row["macs_ratio"] <= 0.5 for row in rows)
        assert all(row["allocation"] in ended.out for row in rows)
        page = (out / "compare.html").read_text()
        assert all(f"<td>{row['allocation']}</td>" in page for row in rows)
    own = {"complementary": "measured", "random": "uniform", "magnitude": "uniform"}
    assert {name: row["allocation"] for name, row in found["auto"].items()} == own
    assert {row["allocation"] for row in found["measured"].values()} == {"measured"}
    assert {row["allocation"] for row in found["uniform"].values()} == {"uniform"}
    # What changes is how many of each group, so as many channels in all are a coincidence.
    assert found["measured"]["magnitude"]["kept"] != found["uniform"]["magnitude"]["kept"]
    same = ("kept", "pruned")
    assert [found["measured"]["complementary"][k] for k in same] == [
        found["auto"]["complementary"][k] for k in same
    ]


def test_rivals_get_what_the_knee_keeps_in_steps(coprune, base, digits, tmp_path):
    # Once a bug: what the knee keeps was counted without --round-to, and rivals got other MACs than it.
    out = tmp_path / "cmp"
    ended = coprune(
        "compare", "--model", base, "--data", digits, "--methods", "cosep,magnitude", "--keep-macs", "knee",
        "--round-to", 2, "--seeds", 1, "--recovery", "none", "--out", out,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    at_knee = {r["method"]: r["macs_ratio"] for r in json.loads((out / "compare.json").read_text())["rows"]}
    assert at_knee["cosep"] * 0.8 <= at_knee["magnitude"] <= at_knee["cosep"] + 1e-9


def test_what_is_decided_on_too_few_rows_is_said_of_its_first_row(coprune, compare, tmp_path):
    ended = coprune(*compare, "--methods", "complementary,random", "--keep-macs", "0.5", "--calibration", 9,
                    "--seeds", 1, "--recovery", "none,bn", "--out", tmp_path / "cmp")  # fmt: skip
    assert ended.code == 0, ended.err
    rows = json.loads((tmp_path / "cmp" / "compare.json").read_text())["rows"]
    few = "layers that read no more places of the 9 calibration samples"
    notes = {(r["method"], r["recovery"]): [n for n in r["notes"] if n.startswith(few)] for r in rows}
    assert {way: len(found) for way, found in notes.items()} == {
        ("complementary", "none"): 1, ("complementary", "bn"): 0, ("random", "none"): 0, ("random", "bn"): 0,
    }  # fmt: skip
    said = " ".join(ended.out.split())
    assert said.count(few) == said.count(f"complementary, budget 0.5, recovery none, seed 0: {few}") == 1
