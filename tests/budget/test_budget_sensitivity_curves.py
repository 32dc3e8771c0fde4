"""Curves of groups pruned alone: scaled through what was measured, and the model as it was."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from coprune.budget.sensitivity_curves import (
    IMAGES,
    LARGE,
    LEVELS,
    TOKENS,
    effort_for,
    levels,
    measured_curves,
    pruned_alone,
    resolved,
    through,
)
from coprune.data import ArraySource, LoaderSource
from coprune.groups import find_units
from coprune.methods.complementary import COMPLEMENTARY, ComplementarySettings
from coprune.statistics import Calibration, ConsumerCovariance, Profile, collect
from coprune.statistics import input_covariance as consumers
from coprune.task import TASKS
from coprune.tracing.replay import Replay

IMAGE = torch.zeros(1, 1, 12, 12)


def noise(n=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ArraySource(torch.randn(n, 1, 12, 12, generator=generator), torch.arange(n) % 3)


def choices_of(net, source=None):
    settings = ComplementarySettings()
    groups = find_units(net, IMAGE.clone()).groups
    tensors = collect(Calibration(net, groups, source or noise(), 3), [settings.statistic])
    profile = Profile(groups, tensors)
    return COMPLEMENTARY.choose(profile, settings, 0)


@given(seed=st.integers(0, 9999), size=st.integers(1, 12))
def test_a_curve_goes_through_its_points_and_never_rises(seed, size):
    generator = torch.Generator().manual_seed(seed)
    loss = (
        torch.cat([torch.zeros(1), torch.rand(size, generator=generator) + 1e-3]).double().cumsum(0).flip(0)
    )
    at = levels(size)
    values = sorted((torch.rand(len(at), generator=generator) + 1e-3).tolist(), reverse=True)
    points = dict(zip(at, values, strict=True))
    curve = through(loss, points)
    assert len(curve) == size + 1
    assert float(curve[size]) == 0.0
    assert (curve.diff() <= 1e-12).all()
    for k, value in points.items():
        # A curve that would rise behind a point is lifted there.
        assert float(curve[k]) >= value * (1 - 1e-9)
    factor = values[-1] / float(loss[at[-1]]) if at else 1.0
    torch.testing.assert_close(curve[at[-1] if at else 0 :], factor * loss[at[-1] if at else 0 :])


def test_points_that_agree_with_the_loss_leave_it():
    loss = torch.tensor([8.0, 5.0, 3.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(through(loss, {1: 10.0, 2: 6.0, 4: 1.0}), 2 * loss)
    torch.testing.assert_close(through(loss, {3: 1.0}), loss / 2)


@pytest.mark.parametrize(("size", "effort"), [(28, IMAGES), (128, IMAGES), (129, LARGE), (224, LARGE)])
def test_photographs_are_measured_at_fewer_sizes(size, effort):
    assert effort_for(torch.zeros(1, 3, size, size), TASKS["classification"]) is effort


def test_effort_is_more_samples_of_everything():
    usual = TOKENS
    assert usual.times(1) is usual
    found = usual.times(2.5)
    assert (found.work, found.most, found.learning, found.judging) == (2_500, 625, 320, 40)
    assert replace(found, work=1_000, most=250, learning=128, judging=16) == usual
    assert LARGE.work < IMAGES.work
    assert set(LARGE.levels) < set(IMAGES.levels)


def test_groups_are_measured_below_their_size():
    assert levels(1) == []
    assert levels(2) == [1]
    assert levels(64) == [round(64 * level) for level in reversed(LEVELS)]
    assert all(1 <= k < size for size in range(2, 40) for k in levels(size))


@pytest.mark.parametrize("kept", [[0], [1, 3], [0, 1, 2, 3, 4, 5]])
def test_resolved_equals_a_regression_on_rows(kept):
    # Rows with exactly that mean and covariance; λ as rows that pull the weights to 0.
    units, each, ridge = 6, 2, 1e-3
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 12, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(12, 12, generator=generator, dtype=torch.float64) + 1.5
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    centred = x - x.mean(0)
    consumer = consumers.Consumer(
        "layer", weight, x.mean(0), centred.T @ centred / 90, None, torch.ones(5, dtype=torch.float64)
    )
    solved, shift = resolved(consumer, torch.tensor(kept), units, ridge=ridge)
    columns = [u * each + i for u in kept for i in range(each)]
    strength = ridge * float(consumer.covariance.diagonal().mean()) * 90
    left = torch.cat([centred[:, columns], strength**0.5 * torch.eye(len(columns)).double()])
    right = torch.cat([centred @ weight.T, torch.zeros(len(columns), 5).double()])
    expected = torch.linalg.lstsq(left, right).solution.T
    torch.testing.assert_close(solved[:, columns], expected)
    assert not solved[:, [i for i in range(12) if i not in columns]].any()
    # On average the output is what it was.
    torch.testing.assert_close((x @ solved.T + shift).mean(0), (x @ weight.T).mean(0))


@pytest.mark.parametrize("name", ["flattened", "resnet20", "perceptron"])
@torch.no_grad()
def test_pruned_alone_says_nothing_of_the_removed_units_and_leaves_no_trace(traced, name):
    net = traced[name][0]
    source = noise()
    for choice in choices_of(net)[:2]:
        before, kept = tiny.state_of(net), choice.kept(max(1, choice.group.size // 2))
        gone = [u for u in range(choice.group.size) if u not in kept.tolist()]
        wanted = net(source.images)

        def look(choice=choice, kept=kept, gone=gone, wanted=wanted):
            with pruned_alone(net, choice.consumers, kept, choice.group.size):
                for member in choice.group.of_role("consumer"):
                    weight = net.get_submodule(member.layer).weight
                    assert not weight.unflatten(1, (choice.group.size, -1))[:, gone].any()
                assert not torch.allclose(net(source.images), wanted, atol=1e-4)
                raise RuntimeError("inside")

        with pytest.raises(RuntimeError, match="inside"):
            look()
        assert tiny.same_state(before, tiny.state_of(net))
        assert torch.equal(net(source.images), wanted)
        assert all(not m._forward_hooks for m in net.modules())


@torch.no_grad()
def test_weights_come_back_when_a_later_consumer_cannot_be_solved(traced):
    net = traced["flattened"][0]
    choice = choices_of(net)[0]
    broken = dataclasses.replace(choice.consumers[0], layer="no such layer")
    before = tiny.state_of(net)
    with (
        pytest.raises(AttributeError),
        pruned_alone(net, (*choice.consumers, broken), choice.kept(1), choice.group.size),
    ):
        pass
    assert tiny.same_state(before, tiny.state_of(net))
    assert all(not m._forward_hooks for m in net.modules())


@torch.no_grad()
def test_where_pixels_were_averaged_each_gets_its_share(traced, monkeypatch):
    monkeypatch.setattr(consumers, "LARGEST", 12)  # fc1 reads 6 maps of 4 pixels; 2 are left of each
    net = traced["flattened"][0]
    choice = next(c for c in choices_of(net) if c.group.name == "conv2")
    (consumer,) = choice.consumers
    assert consumer.weight.shape == (10, 12)
    kept = torch.tensor([0, 2, 5])
    solved, shift = resolved(consumer, kept, 6)
    x = torch.rand(4, 24, generator=torch.Generator().manual_seed(0))
    bias = net.fc1.bias.clone()
    with pruned_alone(net, choice.consumers, kept, 6):
        found = net.fc1(x)
    averaged = x.double().view(4, 12, 2).mean(2)
    torch.testing.assert_close(found.double(), averaged @ solved.T + shift + bias, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_measured_point_is_the_divergence_of_the_prediction(traced):
    net, source = traced["flattened"][0], noise()
    choice = choices_of(net)[0]
    curve = measured_curves(net, [choice], source)[choice.group.name]
    reference = net(source.images).double().softmax(1)
    for k in levels(choice.group.size):
        with pruned_alone(net, choice.consumers, choice.kept(k), choice.group.size):
            found = net(source.images).double().softmax(1)
        divergence = float((reference * (reference / found).log()).sum(1).mean())
        expected = (divergence * float(choice.loss[k])) ** 0.5
        assert float(curve[k]) >= expected * (1 - 1e-6)
    k = max(levels(choice.group.size))
    assert float(curve[k]) == pytest.approx(expected, rel=1e-6)


def test_no_label_is_read_and_nothing_is_left_behind(traced):
    net, source = traced["resnet20"][0], noise()
    choices, before = choices_of(net)[:3], tiny.state_of(net)
    once = measured_curves(net, choices, source)
    again = measured_curves(net, choices, ArraySource(source.images, source.labels + 90))
    assert tiny.same_state(once, again)
    assert tiny.same_state(before, tiny.state_of(net))
    assert all(not m._forward_hooks for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


def test_samples_are_evenly_spread_and_fewer_where_there_is_much_to_measure(traced, monkeypatch):
    from coprune.budget import sensitivity_curves as curves

    seen = []

    class Looked(Replay):
        def __init__(self, model, batches):
            super().__init__(model, batches)
            seen.append(torch.cat(batches))

    monkeypatch.setattr(curves, "Replay", Looked)
    source = noise(300)
    choice = choices_of(traced["flattened"][0])[0]
    effort = replace(curves.IMAGES, work=100 * len(levels(choice.group.size)))
    monkeypatch.setattr(curves, "IMAGES", effort)
    measured_curves(traced["flattened"][0], [choice], source)
    assert all(torch.equal(x, source.images[::3]) for x in seen)
    monkeypatch.setattr(curves, "IMAGES", replace(effort, work=1))
    seen.clear()
    measured_curves(traced["flattened"][0], [choice], source)
    assert {len(x) for x in seen} == {64}


def test_a_text_with_an_output_a_token_is_as_good_as_many_samples():
    from coprune.budget import sensitivity_curves as curves

    text = {"input_ids": torch.ones(2, 5, dtype=torch.long)}
    kinds = [
        curves.effort_for(x, TASKS[task])
        for x, task in (
            (torch.zeros(2, 3), "classification"),
            (text, "classification"),
            (text, "text-generation"),
        )
    ]
    assert kinds == [curves.IMAGES, curves.TEXTS, curves.TOKENS]
    # Once a bug: numbers of words in a bare tensor were taken for images, a hundred texts a pass.
    assert curves.effort_for(text["input_ids"], TASKS["text-generation"]) == curves.TOKENS
    assert curves.TOKENS.least * 3 == curves.TEXTS.least
    assert levels(64, curves.TOKENS.levels) == [16, 32]


class Shifted(tiny.Flattened):
    """Its first operation works in place."""

    def forward(self, x):
        return super().forward(x.sub_(0.5))


def test_a_model_whose_first_layer_works_in_place():
    # Once a bug: every measurement changed the samples of the next one.
    net, plain = tiny.randomise(Shifted()), tiny.randomise(tiny.Flattened())
    source = noise()
    lower = ArraySource(source.images - 0.5, source.labels)
    choices = choices_of(plain, lower)
    wanted = measured_curves(plain, choices, lower)
    batches = LoaderSource([(source.images, source.labels)], len(source))
    found = measured_curves(net, choices, batches)
    for name, curve in wanted.items():
        torch.testing.assert_close(found[name], curve)
    assert torch.equal(source.images, noise().images)


def test_the_statistic_is_the_one_that_the_curves_read():
    assert ComplementarySettings().statistic == ConsumerCovariance(places=24, classes=False)
