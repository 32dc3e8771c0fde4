"""Convolutions over signals and volumes are cut, recovered and trained like those over images."""

import json

import pytest
import torch

import coprune as package
import tiny
import tiny_signals
from coprune.data.dataset import in_memory
from coprune.groups import find_units
from coprune.recovery import Pair, kept_outputs, least_squares
from coprune.surgery import cut, masked

KINDS = list(tiny_signals.NETWORKS)
KEEP = {"signals": 0.5, "volumes": 0.8}


@pytest.mark.parametrize("kind", KINDS)
def test_masked_and_cut_agree(kind):
    net = tiny.randomise(tiny_signals.NETWORKS[kind]()).double()
    x = torch.randn(3, *tiny_signals.SHAPES[kind], dtype=torch.float64)
    units = find_units(net, x[:1].float().double(), coupled=True)
    names = {g.name: g.kind for g in units.groups}
    expected = {"signals": {"wide.0": "inner", "last.0": "inner", "narrow.0": "coupled"}}
    assert names == expected.get(kind, {"3": "inner", "5": "inner"})
    decisions = tiny.random_decisions(units.groups, 0)
    with masked(net, decisions):
        wanted = net(x)
    torch.testing.assert_close(cut(net, decisions)(x), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_twins_go_without_a_trace(kind):
    """Half of a layer's units are copies: once they are gone, the next layer takes their part over."""
    net = tiny.randomise(tiny_signals.NETWORKS[kind]())
    first, norm = (net.wide[0], net.wide[1]) if kind == "signals" else (net[3], None)
    half = first.out_channels // 2
    with torch.no_grad():
        for tensor in (first.weight, first.bias, *(norm.state_dict().values() if norm else ())):
            if tensor.ndim:
                tensor[half:] = tensor[:half]
        if kind == "signals":
            for tensor in (net.deep[0].weight, net.deep[0].bias, *net.deep[1].state_dict().values()):
                if tensor.ndim:
                    tensor[half:] = tensor[:half]
    images = torch.randn(60, *tiny_signals.SHAPES[kind])
    units = find_units(net, images[:1])
    group = next(g for g in units.groups if g.size == 2 * half)
    decisions = (tiny.decision(group, list(range(half))),)
    pruned = cut(net, decisions)
    with torch.no_grad():
        wanted = net.eval()(images)
        assert (pruned.eval()(images) - wanted).abs().max() > 1e-2
        source = in_memory([(images, torch.arange(60) % 3)])
        least_squares(Pair(pruned, net, kept_outputs(net, decisions)), source)
        torch.testing.assert_close(pruned(images), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line(kind, coprune, tmp_path):
    data = f"npz:{tiny_signals.write_samples(tmp_path / 'data.npz', kind)}"
    name = {"signals": "Signals", "volumes": "volumes"}[kind]
    base = tmp_path / "base"
    common = ["--data", data, "--threads", 1]
    schedule = ["--epochs", 6, "--lr", 0.05, "--batch-size", 16]
    ended = coprune("train", "--model", f"python:tiny_signals:{name}", *common, *schedule, "--out", base)
    assert ended.code == 0, ended.err
    run = tmp_path / "run"
    asked = ["--keep-macs", KEEP[kind], "--finetune-epochs", 1, "--calibration", 120, "--trust"]
    ended = coprune("prune", "--model", base, *common, *asked, "--out", run)
    assert ended.code == 0, ended.err
    stages = {s["name"]: s for s in json.loads((run / "result.json").read_text())["stages"]}
    assert stages["base"]["value"] > 0.9
    assert stages["recovered"]["value"] >= stages["base"]["value"] - 0.1
    assert stages["pruned"]["macs"] <= (KEEP[kind] + 0.01) * stages["base"]["macs"]
    assert coprune("export", run, "--onnx", "--trust").code == 0
    methods = "complementary,cosep,magnitude,fpgm,taylor,bn_scale,random"
    ended = coprune(
        "compare", "--model", base, *common, "--methods", methods, "--keep-macs", KEEP[kind], "--seeds", 1,
        "--recovery", "bn,least-squares", "--calibration", 120, "--trust", "--out", tmp_path / "cmp",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    # A rival that cannot keep the budget here is left out, and said to be.
    compared = json.loads((tmp_path / "cmp" / "compare.json").read_text())
    assert {row["method"] for row in compared["rows"]} == set(methods.split(",")) - {"bn_scale"}
    assert all(row["macs_ratio"] <= KEEP[kind] for row in compared["rows"])
    (said,) = compared["left_out"]
    assert said.startswith(f"bn_scale is left out: keep_macs={KEEP[kind]} cannot be reached")
    assert said in " ".join(ended.out.split())
    ended = coprune(
        "compare", "--model", base, *common, "--methods", "bn_scale", "--keep-macs", KEEP[kind], "--seeds", 1,
        "--calibration", 120, "--trust", "--out", tmp_path / "alone",
    )  # fmt: skip
    assert ended.code == 2
    assert ended.err.startswith(f"coprune: keep_macs={KEEP[kind]} cannot be reached")
    assert not (tmp_path / "alone" / "compare.json").exists()
    loaded = package.load(run, trust=True)
    assert loaded(torch.randn(2, *tiny_signals.SHAPES[kind])).shape == (2, 3)
