"""One model of each of timm's families: cut equals masked, gradients reach all weights, it loads again.

The families that take longest are marked as slow (``make test-slow``); the others run always.
"""

from __future__ import annotations

import json

import pytest
from test_benchmarks_smoke import ROOT, module

QUICK = 15.0
"""Seconds that the sweep took for a model, most of them to start two processes."""


def families():
    """The model of each family that passed fastest."""
    content = json.loads((ROOT / "benchmarks" / "results" / "zoo.json").read_text())
    passed = [e for e in content["models"] if e["status"] == "passed" and e["family"].startswith("timm/")]
    fastest = {}
    for entry in sorted(passed, key=lambda e: -e["seconds"]):
        fastest[entry["family"]] = entry
    for entry in sorted(fastest.values(), key=lambda e: e["model"]):
        marks = [] if entry["seconds"] <= QUICK else [pytest.mark.slow]
        yield pytest.param(entry["model"], marks=marks, id=entry["family"])


@pytest.mark.parametrize("name", list(families()))
def test_a_model_of_every_family_is_pruned_right(name, tmp_path):
    pytest.importorskip("timm")
    zoo = module("zoo")
    figures = zoo.one(name, tmp_path)
    assert figures["macs"] <= 1.02 * zoo.KEEP  # products of two activations are not in the groups' costs
    assert sum(figures["groups"].values()) > 0
    zoo.again(tmp_path)
