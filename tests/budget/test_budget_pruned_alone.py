"""Budgets are spent where they cost least, and measuring leaves the model as it was."""

from __future__ import annotations

import math

import pytest
import torch

from coprune.budget.cost import cost_model
from coprune.budget.sensitivity_curves import measured_curves, pruned_alone, resolved, through
from coprune.groups import find_units
from coprune.methods.complementary import COMPLEMENTARY, ComplementarySettings
from coprune.statistics import Calibration, Profile, collect
from tiny import network, source

SAMPLES = source(90)
X = next(iter(SAMPLES.batches(8)))[0]


def chosen(name: str = "resnet20"):
    model = network(name)
    groups = find_units(model, X[:1]).groups
    cost = cost_model(model, X[:1], groups)
    settings = ComplementarySettings()
    tensors = collect(Calibration(model, groups, SAMPLES, 3), COMPLEMENTARY.needs(settings))
    return model, cost, COMPLEMENTARY.choose(Profile(groups, tensors), settings, 0)


def falling(*steps: float) -> torch.Tensor:
    return torch.tensor([*steps, 0.0], dtype=torch.float64)


def test_a_curve_goes_through_what_was_measured_and_never_rises():
    loss = falling(8.0, 6.0, 3.0, 2.0, 1.0, 0.5)
    curve = through(loss, {1: 12.0, 3: 3.0})
    assert float(curve[1]) == pytest.approx(12.0)
    assert float(curve[3]) == pytest.approx(3.0)
    assert float(curve[-1]) == 0.0
    assert bool((curve.diff() <= 1e-12).all())
    # Between the points the factor is interpolated in logarithms: √(2 · 1.5) at k = 2.
    assert float(curve[2]) == pytest.approx(3.0 * math.sqrt(12 / 6 * 3 / 2))
    assert torch.equal(through(loss, {}), loss)


def test_resolved_weights_are_the_ridge_regression():
    _, _, choices = chosen()
    consumer, units = choices[0].consumers[0], choices[0].group.size
    kept = torch.tensor([0, 2])
    solved, shift = resolved(consumer, kept, units, ridge=1e-3)
    each = consumer.weight.shape[1] // units
    columns = [u * each + i for u in (0, 2) for i in range(each)]
    others = [i for i in range(consumer.weight.shape[1]) if i not in columns]
    c = consumer.covariance.numpy()
    system = c[columns][:, columns] + 1e-3 * c.diagonal().mean() * torch.eye(len(columns)).double().numpy()
    expected = torch.linalg.solve(
        torch.from_numpy(system), torch.from_numpy(c[columns]) @ consumer.weight.T
    ).T
    torch.testing.assert_close(solved[:, columns], expected)
    assert not solved[:, others].any()
    torch.testing.assert_close(shift, (consumer.weight - solved) @ consumer.mean)


def test_pruning_alone_restores_the_weights_even_after_an_error():
    model, _, choices = chosen()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    choice = choices[0]
    with torch.no_grad():
        reference = model(X)

    def interrupted() -> None:
        with torch.no_grad(), pruned_alone(model, choice.consumers, choice.kept(1), choice.group.size):
            assert not torch.allclose(model(X), reference)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    with torch.no_grad():
        assert torch.equal(model(X), reference)


def test_measured_curves_fall_to_nothing_and_leave_the_model_alone():
    model, _, choices = chosen()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    curves = measured_curves(model, choices, SAMPLES)
    assert set(curves) == {c.group.name for c in choices}
    for choice in choices:
        curve = curves[choice.group.name]
        assert len(curve) == choice.group.size + 1
        assert float(curve[-1]) == 0.0
        assert float(curve[1]) > 0
        assert bool((curve.diff() <= 1e-12).all())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
