"""The Python interface, on loaders and on a model that was built elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import coprune as package
from coprune.api import from_loaders
from coprune.data import LoaderSource
from coprune.training import Recipe, fit


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for layer in (self.a, self.b, self.c):
            x = torch.relu(layer(x))
        return self.fc(x.mean((2, 3)))


def loader(n: int = 90, *, seed: int = 0, shuffle: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, 10, 10, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=shuffle)


def test_loaders_in_smaller_model_out(tmp_path):
    torch.manual_seed(0)
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    outcome = package.prune(
        net,
        train=loader(shuffle=True),
        eval=loader(seed=1),
        method="cosep",
        keep_macs=0.5,
        finetune_epochs=1,
        mss="nearest",
    )
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert outcome.result.stage("finetuned").macs <= 0.5 * outcome.result.stage("base").macs
    assert outcome.plan.settings["mss"] == "nearest"
    run = outcome.save(tmp_path / "run")
    x = torch.rand(4, 1, 10, 10)
    loaded = package.load(run, model=Net())
    assert torch.equal(loaded(x), outcome.model(x))
    # The class is unknown to the folder, and it says what to do about it.
    with pytest.raises(package.UserError, match="model="):
        package.load(run)


@pytest.mark.parametrize(("rate", "said"), [(0.001, False), (30.0, True)])
def test_a_training_that_does_harm_is_said_to(rate, said):
    torch.manual_seed(0)
    net = Net()
    calm = Recipe(epochs=40, lr=0.01, optimizer="adamw")
    fit(net, LoaderSource(loader(), 90), calm, seed=0)
    outcome = package.prune(
        net, train=loader(), eval=loader(seed=1), keep_macs=0.8, finetune_epochs=1, finetune_lr=rate
    )
    assert outcome.result.stage("recovered").value > 0.8
    assert any("made the model worse" in note for note in outcome.result.notes) == said


def test_a_plan_applies_to_another_copy(tmp_path):
    torch.manual_seed(0)
    net = Net()
    outcome = package.prune(net, train=loader(), eval=loader(), keep_units=0.5, recovery="none")
    outcome.plan.save(tmp_path / "plan.json")
    again = package.apply_plan(net, package.Plan.load(tmp_path / "plan.json"), torch.zeros(1, 1, 10, 10))
    x = torch.rand(4, 1, 10, 10)
    assert torch.equal(again(x), outcome.model(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "magnitud"}, "magnitude"),
        ({"keep_macs": 3}, "keep_macs"),
        ({"keep_macs": 0.5, "max_drop": 1}, "one of"),
        ({"method": "cosep", "keep_macs": 0.5, "mss": "worst"}, "--mss worst"),
        ({"keep_macs": 0.5, "mss": "paper"}, "no option of method 'complementary'"),
        ({"keep_macs": 0.5, "scatter": -1}, "--scatter -1"),
        ({"keep_params": 2}, "keep_params"),
        ({"keep_params": 0.5, "latency_ms": 1}, "one of"),
        ({"method": "magnitude", "keep_macs": 0.5, "allocation": "measured"}, "uniform"),
        ({"latency_ms": 1e-9}, "cannot be reached"),
        ({"keep_macs": 0.5, "skip": ["z"]}, "no such layer"),
        ({"keep_macs": 0.5, "train": [torch.zeros(3)]}, "pairs"),
        ({"keep_macs": 0.5, "calibration": []}, "empty"),
        ({"keep_macs": 0.5, "calibration": 100}, "calibration_samples"),
        ({"keep_macs": 0.5, "schedule": "never"}, "schedule"),
    ],
)
def test_mistakes_are_one_line(arguments, words):
    with pytest.raises(package.UserError, match=words) as caught:
        package.prune(Net(), **{"train": loader(), "eval": loader(), **arguments})
    assert "\n" not in str(caught.value)


def test_a_list_of_batches_has_as_many_samples_as_they_have():
    batches = list(loader(90))
    data = from_loaders(train=batches, heldout=batches, calibration=None, calibration_samples=50)
    assert len(data.train) == len(data.heldout) == 90
    assert len(data.calibration) == 50


def test_a_model_with_nan_is_refused():
    net = Net()
    with torch.no_grad():
        net.b.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(package.UserError, match="NaN"):
        package.prune(net, train=loader(), eval=loader(), keep_macs=0.5)
