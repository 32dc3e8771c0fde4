"""``coprune recover`` and ``coprune.recover_model``: a pruned model from anywhere."""

from __future__ import annotations

import json
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import coprune as package
import tiny
from coprune.groups import ChannelGroup, find_units
from coprune.pipeline.surviving import _units_left
from coprune.plan import GroupDecision, Member
from coprune.recovery import Recovered, reestimate_batchnorm
from coprune.recovery.reconstruction import PASSES, VISITS
from coprune.surgery import cut
from tiny import network, source


def test_a_run_is_recovered_from_the_command_line(coprune, base, digits, tmp_path):
    cut_run, out = tmp_path / "cut", tmp_path / "out"
    assert coprune("prune", "--model", base, "--data", digits, "--method", "magnitude", "--keep-macs", "0.4",
                   "--recovery", "none", "--out", cut_run).code == 0  # fmt: skip
    assert coprune("recover", "--model", cut_run, "--teacher", base, "--data", digits, "--out", out).code == 0
    result = json.loads((out / "result.json").read_text())
    stages = {s["name"]: s for s in result["stages"]}
    assert list(stages) == ["base", "pruned", "recovered"]
    assert stages["recovered"]["macs"] == stages["pruned"]["macs"] < stages["base"]["macs"]
    assert stages["recovered"]["calibration"] >= stages["pruned"]["calibration"]
    assert (out / "report.html").is_file()
    assert package.load(out) is not None
    # The plan is the one that cut, and says how it was recovered.
    assert json.loads((cut_run / "plan.json").read_text())["settings"]["recovery"] == "none"
    assert json.loads((out / "plan.json").read_text())["settings"]["recovery"] == "least-squares"


@pytest.mark.parametrize("recovery", ["least-squares", "channel-least-squares"])
def test_without_a_plan_it_is_found_out_what_was_cut(coprune, base, digits, tmp_path, recovery):
    cut_run, out = tmp_path / "cut", tmp_path / "out"
    assert coprune("prune", "--model", base, "--data", digits, "--method", "magnitude", "--keep-macs", "0.6",
                   "--recovery", "none", "--out", cut_run).code == 0  # fmt: skip
    plan = json.loads((cut_run / "plan.json").read_text())
    (cut_run / "plan.json").unlink()
    ended = coprune("recover", "--model", cut_run, "--teacher", base, "--data", digits,
                    "--recovery", recovery, "--out", out)  # fmt: skip
    assert ended.code == 0
    found = json.loads((out / "plan.json").read_text())
    assert [g["kept"] for g in found["groups"]] == [g["kept"] for g in plan["groups"]]
    assert found["method"] == "elsewhere"
    assert found["settings"]["recovery"] == recovery
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert any(e["changed"] for e in events if e["event"] == "layer")


def test_all_layers_together_from_the_command_line(coprune, small_base, digits, tmp_path):
    cut_run, out = tmp_path / "cut", tmp_path / "out"
    assert coprune("prune", "--model", small_base, "--trust", "--data", digits, "--method", "magnitude",
                   "--keep-macs", "0.3", "--recovery", "none", "--out", cut_run).code == 0  # fmt: skip
    assert coprune("recover", "--model", cut_run, "--teacher", small_base, "--trust", "--data", digits,
                   "--recovery", "reconstruction", "--effort", 0.5, "--out", out).code == 0  # fmt: skip
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    (did,) = [e for e in events if e["event"] == "reconstruction"]
    assert did["passes"] == round(0.5 * max(PASSES, round(VISITS / did["samples"])))
    # Least squares has hardly left anything to find here; what makes it worse is taken back.
    assert did["changed"] == (did["after"] < did["before"])
    assert any(e["event"] == "layer" for e in events)


def test_a_model_that_recovery_would_make_worse_comes_back_as_it_came(
    coprune, base, digits, tmp_path, monkeypatch
):
    cut_run, out = tmp_path / "cut", tmp_path / "out"
    assert coprune("prune", "--model", base, "--data", digits, "--method", "magnitude", "--keep-macs", "0.9",
                   "--recovery", "none", "--out", cut_run).code == 0  # fmt: skip

    def harmed(pair, *_args, **_named):
        for weight in pair.model.parameters():
            weight.data.zero_()
        return Recovered(True, True)

    found = SimpleNamespace(run=harmed)
    monkeypatch.setattr(import_module("coprune.pipeline.context"), "find_recovery", lambda _: found)
    assert coprune("recover", "--model", cut_run, "--teacher", base, "--data", digits, "--out", out).code == 0
    result = json.loads((out / "result.json").read_text())
    pruned, recovered = (next(s for s in result["stages"] if s["name"] == n) for n in ("pruned", "recovered"))
    assert pruned["value"] > 0.3
    assert recovered | {"name": "pruned"} == pruned
    assert any(note["code"] == "handed_back_as_it_came" for note in result["notes"])
    came, went = (load_file(f / "model.safetensors") for f in (cut_run, out))
    assert all(torch.equal(v, went[k]) for k, v in came.items())


def test_a_teacher_of_another_shape_is_one_line(coprune, base, digits, tmp_path):
    ended = coprune("recover", "--model", base, "--teacher", "coprune:vgg16_bn", "--data", digits, "--out",
                    tmp_path / "out")  # fmt: skip
    assert ended.code == 2
    assert "not the same network" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recovery", ["least-squares", "channel-least-squares"])
def test_from_python(recovery):
    teacher = network("resnet20")
    samples = source(96)
    reestimate_batchnorm(teacher, samples)  # as training would leave them
    x = next(iter(samples.batches(32)))[0]
    decisions = tuple(
        GroupDecision(name=g.name, members=g.members, size=g.size, kept=(0, 2), reason="test")
        for g in find_units(teacher, x[:1]).groups[:2]
    )
    pruned = cut(teacher, decisions)
    before = {k: v.clone() for k, v in pruned.state_dict().items()}
    recovered = package.recover_model(
        pruned, teacher=teacher, calibration=samples.batches(32), recovery=recovery
    )
    assert all(torch.equal(v, pruned.state_dict()[k]) for k, v in before.items())
    with torch.no_grad():
        wanted, cut_away, found = (m.eval()(x) for m in (teacher, pruned, recovered))
    assert (found - wanted).square().mean() < (cut_away - wanted).square().mean()


def test_a_plan_that_cut_another_network_is_refused():
    read = list(source(96).batches(32))
    done = tiny.prune(network("resnet20"), train=read, eval=read, method="magnitude", keep_macs=0.5)
    with pytest.raises(package.UserError, match="plan for another model: the weights"):
        package.recover_model(
            done.model, teacher=network("resnet20", seed=1), plan=done.plan, calibration=read
        )
    package.recover_model(done.model, teacher=network("resnet20"), plan=done.plan, calibration=read)


def test_units_are_told_by_the_channels_that_a_producer_still_makes():
    members = (
        Member(layer="q", role="producer", offset=8, span=4),
        Member(layer="o", role="consumer", span=4),
    )
    heads = ChannelGroup("attention", 3, members, "heads")
    assert _units_left(heads, {"q": torch.tensor([0, 1, 8, 9, 10, 11, 16, 17, 18, 19, 20])}) == (0, 2)
    assert _units_left(heads, {}) == (0, 1, 2)
    with pytest.raises(package.UserError, match="is unknown which heads"):
        _units_left(heads, {"q": torch.tensor([8, 9, 10, 16])})


def test_batch_norms_need_not_know_what_was_cut():
    teacher, read = network("resnet20"), list(source(96).batches(32))
    pruned = tiny.prune(
        teacher, train=read, eval=read, keep_macs=0.5, units=("inner", "coupled"), recovery="none"
    ).model
    with pytest.raises(package.UserError, match="plan"):
        package.recover_model(pruned, teacher=teacher, calibration=read)
    found = package.recover_model(pruned, teacher=teacher, calibration=read, recovery="bn")
    norms = [n for n, m in pruned.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not torch.equal(
        found.get_submodule(norms[0]).running_mean, pruned.get_submodule(norms[0]).running_mean
    )


def test_batch_norms_of_a_run_without_its_plan(coprune, base, digits, tmp_path):
    run, out = tmp_path / "cut", tmp_path / "out"
    typed = ("--units", "inner,coupled", "--method", "magnitude", "--recovery", "none", "--out", run)
    assert coprune("prune", "--model", base, "--data", digits, "--keep-macs", "0.5", *typed).code == 0
    (run / "plan.json").unlink()
    typed = ("recover", "--model", run, "--teacher", base, "--data", digits, "--out", out)
    assert "plan" in coprune(*typed).err
    ended = coprune(*typed, "--recovery", "bn")
    assert ended.code == 0, ended.err
    assert package.Plan.load(out / "plan.json").settings["recovery"] == "bn"
    assert (out / "report.html").is_file()
    assert package.load(out) is not None
