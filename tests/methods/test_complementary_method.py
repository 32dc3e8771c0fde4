"""The choice as a plan records it: any k, and who took over what."""

from __future__ import annotations

import pytest
import torch

from coprune.groups import ChannelGroup, find_units
from coprune.methods.complementary import COMPLEMENTARY, ComplementarySettings
from coprune.methods.complementary.method import choose_group
from coprune.methods.complementary.redundancy import predictions, unit_covariance
from coprune.plan import Member
from coprune.statistics import Calibration, Consumer, ConsumerCovariance, Profile, collect
from coprune.statistics.fisher import output_sensitivity
from tiny import Flattened, network, randomise, source

SAMPLES = source(60)
X = next(iter(SAMPLES.batches(60)))[0]


def profile_of(model, settings=None, batch_size=250):
    groups = find_units(model, X[:1]).groups
    settings = settings or ComplementarySettings()
    tensors = collect(
        Calibration(model, groups, SAMPLES, 3, batch_size=batch_size), COMPLEMENTARY.needs(settings)
    )
    return Profile(groups, tensors)


@pytest.mark.parametrize("settings", [{}, {"weighting": "none"}, {"scatter": 1.0}])
def test_every_k_is_a_valid_decision(settings):
    model = randomise(Flattened())
    chosen = ComplementarySettings(**settings)
    for choice in COMPLEMENTARY.choose(profile_of(model, chosen), chosen, 0):
        kept_before: set[int] = set(range(choice.group.size))
        for k in range(choice.group.size, 0, -1):
            found = choice.keep(k, why="because")
            assert len(found.kept) == k
            assert set(found.kept) <= kept_before  # nested: one pass gives every k
            kept_before = set(found.kept)
            assert [e.unit for e in found.predicted] == sorted(set(range(found.size)) - set(found.kept))
            assert [i for i, _ in found.curve] == list(range(1, found.size + 1))


def test_a_twin_is_said_to_be_said_by_its_twin():
    draws = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.cat([draws, draws[:, :1] * 2, torch.zeros(500, 1, dtype=torch.float64)], 1)
    centred = values - values.mean(0)
    twin, still = predictions(centred.T @ centred / 500, torch.tensor([0, 1, 2]))
    assert twin.unit == 3
    assert twin.explained > 0.99
    assert twin.by[0][0] == 0
    assert twin.by[0][1] > 0.98
    assert (still.unit, still.explained, still.by) == (4, 1.0, ())


def test_parts_add_up_to_what_is_explained():
    mix = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = torch.randn(400, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) @ mix
    centred = values - values.mean(0)
    for entry in predictions(centred.T @ centred / 400, torch.tensor([0, 2, 4])):
        assert sum(part for _, part in entry.by) == pytest.approx(entry.explained, abs=2e-3)
        assert 0 <= entry.explained <= 1


def test_unit_covariance_averages_over_the_kernel():
    wide = torch.arange(36.0, dtype=torch.float64).view(6, 6)
    expected = (wide[::2, ::2] + wide[1::2, 1::2]) / 2
    torch.testing.assert_close(unit_covariance(wide, 3), expected)


def test_statistics_do_not_depend_on_the_batches():
    model = network("resnet20")
    one, many = profile_of(model), profile_of(model, batch_size=7)
    for group in one.groups:
        wanted = ConsumerCovariance()
        for a, b in zip(one.of(wanted, group), many.of(wanted, group), strict=True):
            torch.testing.assert_close(a.mean, b.mean, rtol=1e-5, atol=1e-7)
            # Products are made in float32; what they are small differences of decides how exact they are.
            near = 5e-6 * float(a.covariance.abs().max())
            torch.testing.assert_close(a.covariance, b.covariance, rtol=0, atol=near)


def test_covariance_of_a_linear_consumer_is_that_of_its_inputs():
    model = randomise(Flattened())
    profile = profile_of(model)
    group = next(g for g in profile.groups if g.name == "fc1")
    (consumer,) = profile.of(ConsumerCovariance(), group)
    read = []
    handle = model.fc2.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.no_grad():
        model(X)
    handle.remove()
    values = read[0].double()
    torch.testing.assert_close(consumer.mean, values.mean(0))
    torch.testing.assert_close(consumer.covariance, torch.cov(values.T, correction=0), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(consumer.weight, model.fc2.weight.detach().double())


def test_sensitivity_is_the_mean_square_gradient_of_drawn_classes():
    model = randomise(Flattened())
    groups = find_units(model, X[:1]).groups
    found = output_sensitivity(Calibration(model, groups, SAMPLES, 3, batch_size=60))
    with torch.no_grad():
        chances = model(X).softmax(1)
    drawn = torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    # fc2 puts out the logits: the gradient is p − one-hot.
    gradient = chances - torch.nn.functional.one_hot(drawn, 3)
    expected = gradient.double().square().mean(0)
    torch.testing.assert_close(found["fc1/fc2/sensitivity"], expected, rtol=1e-4, atol=1e-8)
    assert all(p.grad is None for p in model.parameters())


def consumer(name, weight, sensitivity, *, between=None):
    """One that reads three independent units of variance 1, so that each unit's loss stands alone."""
    width = len(weight[0])
    return Consumer(
        layer=name,
        weight=torch.tensor(weight, dtype=torch.float64),
        mean=torch.zeros(width, dtype=torch.float64),
        covariance=torch.eye(width, dtype=torch.float64),
        between=between,
        sensitivity=torch.tensor(sensitivity, dtype=torch.float64),
    )


def three_units():
    members = [Member(layer="maker", role="producer")]
    members += [Member(layer=name, role="consumer") for name in ("first", "second")]
    return ChannelGroup(name="maker", size=3, members=tuple(members), kind="inner")


def test_the_losses_of_two_consumers_are_weighed_by_what_their_outputs_cost_and_added():
    # Unit u costs Σ over consumers and outputs of sensitivity · weight²: .04·100 = 4, 1·9 = 9, 1·1 + 4·1 = 5.
    # Without sensitivities 0 would be the dearest, with their squares 2, of the first consumer alone 2 the
    # cheapest.
    first = consumer("first", [[10.0, 0.0, 0.0], [0.0, 3.0, 1.0]], [0.04, 1.0])
    second = consumer("second", [[0.0, 0.0, 1.0]], [4.0])
    choice = choose_group((first, second), three_units(), ComplementarySettings(ridge=1e-9))
    assert choice.elimination.order.tolist() == [0, 2, 1]
    assert choice.elimination.loss.tolist() == pytest.approx([0.0, 4.0, 9.0, 18.0])
    plain = choose_group((first, second), three_units(), ComplementarySettings(weighting="none", ridge=1e-9))
    assert plain.elimination.order.tolist() == [2, 1, 0]
    assert plain.elimination.loss.tolist() == pytest.approx([0.0, 2.0, 11.0, 111.0])


def test_scatter_counts_in_proportion_to_the_covariance():
    # tr C = 3, tr B = .03: α = .5 adds .5 · 100 · B, so the units' squares are 1, 1 and 1 + 1.5.
    between = torch.diag(torch.tensor([0.0, 0.0, 0.03], dtype=torch.float64))
    reader = consumer("first", [[1.5, 1.2, 1.0]], [1.0], between=between)
    choice = choose_group((reader,), three_units(), ComplementarySettings(scatter=0.5, ridge=1e-9))
    assert choice.elimination.order.tolist() == [1, 0, 2]
    assert choice.elimination.loss.tolist() == pytest.approx([0.0, 1.44, 3.69, 6.19])
