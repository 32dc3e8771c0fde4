"""Wanda-sp and FLAP as typed: their own recovery, plans over all layers, pages, and rows of a comparison."""

import json

import numpy as np
import pytest
import torch

import coprune as package
import tiny
import tiny_transformers as zoo
from coprune.plan import Plan
from coprune.tracing.forward import part_of


class Loader(list):
    dataset = range(24)


def sentences():
    whole = zoo.inputs("llama_grouped", samples=24)
    return Loader((part_of(whole, slice(i, i + 8)), torch.arange(8) % 3) for i in range(0, 24, 8))


def test_flap_prunes_a_network_of_channels_and_leaves_biases(coprune, base, digits, tmp_path):
    common = ("--model", base, "--data", digits, "--keep-macs", 0.6, "--latency-batches", 1)
    coprune("prune", *common, "--method", "flap", "--out", tmp_path / "run")
    plan = Plan.load(tmp_path / "run/plan.json")
    assert (plan.joint, plan.settings["recovery"]) == (True, "bias")
    assert len({len(g.kept) / g.size for g in plan.groups}) > 1
    stages = json.loads((tmp_path / "run/result.json").read_text())["stages"]
    assert [s["name"] for s in stages] == ["base", "pruned", "recovered"]
    assert 0.5 < stages[-1]["macs"] / stages[0]["macs"] <= 0.6
    page = (tmp_path / "run/report.html").read_text()
    assert "FLAP" in page
    assert "standardised fluctuation" in page
    coprune("inspect", tmp_path / "run")
    loaded = package.load(tmp_path / "run")
    readers = [
        m.layer for g in plan.groups for m in g.members if m.role == "consumer" and len(g.kept) < g.size
    ]
    assert all(loaded.get_submodule(layer).bias is not None for layer in readers)


def test_wanda_sp_takes_the_same_share_of_every_block_and_recovers_nothing():
    pytest.importorskip("transformers")
    model, read = zoo.transformer("llama_grouped", dtype=torch.float32), sentences()
    for method, joint, stages in (("wanda_sp", False, 2), ("flap", True, 3)):
        found = tiny.prune(model, train=read, eval=read, calibration=read, keep_units=0.5, method=method)
        kept = {len(g.kept) / g.size for g in found.plan.groups}
        assert (kept == {0.5}) is not joint
        assert found.plan.joint is joint
        assert len(found.result.stages) == stages


def test_a_comparison_has_rows_of_both(coprune, base, digits, tmp_path):
    asked = ("--methods", "wanda_sp,flap,random", "--keep-macs", "0.6", "--recovery", "bias,none")
    coprune("compare", "--model", base, "--data", digits, *asked, "--seeds", 1, "--out", tmp_path / "all")
    found = json.loads((tmp_path / "all/compare.json").read_text())
    assert {(r["method"], r["recovery"]) for r in found["rows"]} == {
        (m, r) for m in ("wanda_sp", "flap", "random") for r in ("bias", "none")
    }
    assert all(0.5 < r["macs_ratio"] <= 0.6 for r in found["rows"])
    page = (tmp_path / "all/compare.html").read_text()
    assert "Wanda-sp" in page
    assert "FLAP" in page


def test_without_labels_what_reads_them_is_left_out_by_name(coprune, base, digits, tmp_path):
    arrays = dict(np.load(digits.removeprefix("npz:")))
    plain = tmp_path / "plain.npz"
    np.savez(plain, **{name: array for name, array in arrays.items() if not name.startswith("y")})
    asked = ("--methods", "flap,cosep,taylor", "--keep-macs", 0.6, "--recovery", "bias", "--seeds", 1)
    common = ("--model", base, "--data", f"npz:{plain}", "--task", "outputs")
    ended = coprune("compare", *common, *asked, "--out", tmp_path / "all")
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "all/compare.json").read_text())
    assert [r["method"] for r in found["rows"]] == ["flap"]
    assert [one.partition(" is left out")[0] for one in found["left_out"]] == ["cosep", "taylor"]
    ended = coprune("prune", *common, "--method", "cosep", "--keep-macs", 0.6, "--out", tmp_path / "run")
    assert ended.code == 2
    assert "it looks at classes" in ended.err
    assert not (tmp_path / "run").exists()
