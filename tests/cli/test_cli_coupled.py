"""Coupled groups as a user types it: prune, look, load, compare."""

from __future__ import annotations

import json

import torch

import coprune as package


def test_prune_streams_in_multiples_of_the_named_stages_only(coprune, base, digits, tmp_path):
    out = tmp_path / "run"
    asked = ["--units", "inner,coupled", "--only", "layer2,layer3", "--round-to", 4, "--keep-macs", 0.7]
    given = ["--model", base, "--data", digits, "--calibration", 60, "--latency-batches", ""]
    ended = coprune("prune", *given, *asked, "--method", "magnitude", "--out", out)
    assert ended.code == 0, ended.err
    plan = json.loads((out / "plan.json").read_text())
    assert [g["name"] for g in plan["groups"] if len(g["members"]) > 5] == [
        "layer2.0.downsample.0",
        "layer3.0.downsample.0",
    ]
    assert all(g["name"].startswith(("layer2", "layer3")) for g in plan["groups"])
    assert all(len(g["kept"]) % 4 == 0 for g in plan["groups"])
    assert plan["settings"]["only"] == ["layer2", "layer3"]
    stages = {s["name"]: s for s in json.loads((out / "result.json").read_text())["stages"]}
    assert stages["pruned"]["macs"] <= 0.7 * stages["base"]["macs"]
    assert package.load(out)(torch.zeros(1, 1, 12, 12)).shape == (1, 4)
    looked = coprune("inspect", out)
    assert looked.code == 0
    assert "not among --only" in looked.out


def test_compare_takes_the_same_options(coprune, base, digits, tmp_path):
    given = ["--model", base, "--data", digits, "--calibration", 60, "--seeds", 1, "--keep-macs", 0.6]
    asked = ["--units", "inner,coupled", "--round-to", 2, "--methods", "complementary,magnitude"]
    ended = coprune("compare", *given, *asked, "--out", tmp_path / "cmp")
    assert ended.code == 0, ended.err
    rows = json.loads((tmp_path / "cmp" / "compare.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"complementary", "magnitude"}
    assert all(row["macs_ratio"] <= 0.6 for row in rows)
    assert all(row["kept"] % 2 == 0 for row in rows)
