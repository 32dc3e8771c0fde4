"""The Python interface: models with tied weights, slopes, norms; budgets, searches and what comes of them."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import nn

import coprune as package
import tiny
from coprune.budget.search import Found, Loss, Probe
from coprune.pipeline.jobs import Measuring
from coprune.pipeline.measure import measure_run
from coprune.recovery.base import UNCHANGED
from loaders import Net, loader


class Tied(nn.Module):
    """Two layers with one weight, and two plain ones."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
        self.b.weight = self.a.weight
        self.c, self.d, self.e = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x):
        for layer in (self.a, self.b, self.c, self.d):
            x = torch.relu(layer(x))
        return self.e(x)


@pytest.mark.parametrize("units", [(), ("inner", "coupled")])
def test_layers_with_one_weight_are_left_alone(units):
    torch.manual_seed(0)
    read = [(torch.randn(16, 16), torch.arange(16) % 3) for _ in range(6)]
    outcome = tiny.prune(Tied(), train=read, eval=read, keep_macs=0.5, units=units)
    assert outcome.model.a.weight is outcome.model.b.weight
    assert [g.name for g in outcome.plan.groups] == ["c", "d"]
    assert {s.layer: s.reason for s in outcome.plan.skipped}["b"] == "'b' has the weights of 'a'"


def test_tied_weights_that_were_cut_apart_elsewhere_are_left_as_they_are():
    torch.manual_seed(0)
    read = [(torch.randn(16, 16), torch.arange(16) % 3) for _ in range(6)]
    teacher = Tied()
    plan = tiny.prune(teacher, train=read, eval=read, keep_macs=0.6, recovery="none").plan
    pruned = package.apply_plan(teacher, plan, read[0][0][:1])
    pruned.b.weight = nn.Parameter(pruned.b.weight.detach().clone())
    recovered = package.recover_model(pruned, teacher=teacher, calibration=read, plan=plan)
    assert torch.equal(recovered.b.weight, pruned.b.weight)
    assert not torch.equal(recovered.e.weight, pruned.e.weight)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU(),
            nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3),
        )  # fmt: skip

    def forward(self, x):
        return self.net(x)


def test_a_budget_out_of_reach_says_what_coupled_channels_would_do_or_takes_them():
    torch.manual_seed(0)
    read = [(torch.randn(16, 16), torch.arange(16) % 3) for _ in range(6)]
    with pytest.raises(
        package.UserError, match=r"units=\('inner', 'coupled'\) removes coupled channels too$"
    ):
        tiny.prune(Normed(), train=read, eval=read, keep_macs=0.3, units=("inner",))
    for units in (("inner", "coupled"), ()):
        outcome = tiny.prune(Normed(), train=read, eval=read, keep_macs=0.3, units=units)
        assert outcome.result.stages[-1].macs <= 0.3 * outcome.result.stages[0].macs


def test_values_too_large_to_be_squared_are_one_line():
    torch.manual_seed(0)
    read = [(1e25 * torch.randn(16, 16), torch.arange(16) % 3) for _ in range(6)]
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    with pytest.raises(package.UserError, match="normalisation") as caught:
        tiny.prune(net, train=read, eval=read, keep_macs=0.5)
    assert "\n" not in str(caught.value)


def slopes(act) -> nn.Module:
    layers = [
        m for i, o in ((1, 8), (8, 12), (12, 12)) for m in (nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), act(o))
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize("units", [(), ("inner", "coupled")])
@pytest.mark.parametrize(
    "act", [lambda channels: nn.PReLU(), nn.PReLU], ids=["one slope", "a slope a channel"]
)
def test_learned_slopes(act, units):
    torch.manual_seed(0)
    outcome = tiny.prune(
        slopes(act), train=loader(), eval=loader(), keep_macs=0.5, units=units, finetune_epochs=1
    )
    assert [s.name for s in outcome.result.stages][:2] == ["base", "pruned"]
    assert outcome.result.stages[-1].macs <= 0.5 * outcome.result.stages[0].macs


def test_a_share_of_every_group_is_uniform():
    torch.manual_seed(0)
    outcome = tiny.prune(Net(), train=loader(), eval=loader(), keep_units=0.5)
    assert outcome.plan.settings["allocation"] == "uniform"


def test_a_search_needs_samples_to_judge_on():
    with pytest.raises(package.UserError, match="two calibration samples"):
        tiny.prune(Net(), train=loader(), eval=loader(), calibration_samples=1)


def test_a_saved_model_of_unknown_origin_has_no_unpruned_twin(tmp_path, monkeypatch):
    torch.manual_seed(0)
    outcome = tiny.prune(Net(), train=loader(), eval=loader(), keep_macs=0.5)
    run = outcome.save(tmp_path / "run")
    monkeypatch.setattr("coprune.pipeline.measure.load", lambda *_, **__: outcome.model)
    lines = list(
        measure_run(run, Measuring(input_shape=(1, 10, 10), latency_batches=(1,), threads=1, device="cpu"))
    )
    assert not any(line.startswith("unpruned") for line in lines)
    assert "as fast" not in "".join(lines)
    assert "the unpruned model is not recorded" in lines[-1]


def test_none_is_no_name():
    given = {"train": loader(), "eval": loader(), "keep_macs": 0.6, "method": "magnitude"}
    net = Net()
    plans = [
        tiny.prune(net, **given, **words).plan.groups
        for words in ({}, {"units": None, "skip": None, "only": None})
    ]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("allowed", [True, False])
def test_with_a_limit_a_training_must_be_as_sure_as_a_probe(monkeypatch, allowed):
    # Once a bug: what it was seen to lose counted, not what it may have lost.
    search, judging = (import_module(f"coprune.pipeline.{name}") for name in ("search", "judging"))
    monkeypatch.setattr(search, "search_drop", cut_to_half)
    monkeypatch.setattr(judging, "lost", lambda *_, **__: Loss(0.5, 0.4, 1.0 if allowed else 1.1))
    given = {"train": loader(), "eval": loader(), "max_drop": 1.0, "finetune_epochs": 1}
    outcome = tiny.prune(Net(), calibration=loader(seed=2), **given)
    said = "no longer show a loss of at most 1 points" in " ".join(outcome.result.notes)
    assert said != allowed
    assert (outcome.result.stage("finetuned") is not None) == allowed


def cut_to_half(_least, _base, limit, *, decide, judge):
    probe = Probe(macs=0.5, value=0.9, drop=0.0, low=0.0, high=0.0, ok=True, chosen=True)
    return Found(decide(0.5)[1], (probe,), limit)


@pytest.mark.parametrize("recovery", ["bn", "none"])
def test_a_recovery_that_has_nothing_to_change_has_its_stage_and_says_so(recovery):
    # Once a bug: the stage was there only when something had changed, and compare's row had none.
    asked = recovery != "none"
    done = tiny.prune(
        Net(), train=loader(), eval=loader(), method="magnitude", keep_macs=0.5, recovery=recovery
    ).result
    assert [s.name for s in done.stages] == ["base", "pruned", *(["recovered"] if asked else [])]
    assert done.stages[-1].value == done.stage("pruned").value
    assert (UNCHANGED in done.notes) == asked


def test_a_loader_that_shuffles_gives_the_same_network_and_leaves_the_generator_alone():
    # Once a bug: which samples were taken followed from the caller's generator, and that was set anew.
    torch.manual_seed(0)
    net = Net()
    states = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        read = {"calibration_samples": 30, "seed": 5}
        done = tiny.prune(
            net, train=loader(shuffle=True), eval=loader(), method="magnitude", keep_macs=0.5, **read
        )
        plain = tiny.prune(
            net, train=loader(), eval=loader(), method="magnitude", keep_macs=0.5, recovery="none"
        )
        again = package.recover_model(
            plain.model, teacher=net, plan=plain.plan, calibration=loader(shuffle=True), **read
        )
        assert torch.equal(torch.get_rng_state(), before)
        states.append([*done.model.state_dict().values(), *again.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_result_is_read_from_a_name(tmp_path):
    done = tiny.prune(Net(), train=loader(), eval=loader(), method="magnitude", keep_macs=0.5)
    run = done.save(tmp_path / "run")
    assert package.Result.load(str(run / "result.json")) == done.result
