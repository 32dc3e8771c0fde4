"""Consumers that read no more rows than they have columns: any regression fits them, and says nothing."""

import pytest
import torch
from torch import nn

import coprune
import tiny
from coprune.budget import sensitivity_curves
from coprune.budget.sensitivity_curves import IMAGES, _curve, measured_curves, resolved
from coprune.data import ArraySource
from coprune.groups import find_units
from coprune.methods.complementary import COMPLEMENTARY, ComplementarySettings
from coprune.result import Code
from coprune.statistics import Calibration, Profile, collect
from coprune.statistics.input_covariance import Consumer

SAMPLES, WIDTH = 32, 40


class Narrow(nn.Module):
    """A head that reads 40 features of each of 32 samples."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide, self.head = nn.Linear(30, 60), nn.Linear(60, WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x):
        return self.head(self.wide(self.stem(x).relu()).relu())


def drawn(n=SAMPLES, seed=1):
    return torch.randn(n, 30, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def few():
    net, source = tiny.randomise(Narrow()).eval(), ArraySource(drawn(), torch.arange(SAMPLES) % 5)
    settings = ComplementarySettings()
    groups = find_units(net, drawn(1)).groups
    profile = Profile(groups, collect(Calibration(net, groups, source, 5), [settings.statistic]))
    (choice,) = COMPLEMENTARY.choose(profile, settings, 0)
    return net, source, choice


def divergence(logits, wanted):
    """Kullback–Leibler's, ``[N]``."""
    return (wanted.softmax(1) * (wanted.log_softmax(1) - logits.log_softmax(1))).sum(1)


def consumer_of(rows, weight):
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / len(rows)
    return Consumer(
        "head", weight, rows.mean(0), covariance, None, torch.ones(len(weight)).double(), rows=len(rows)
    )


def test_without_some_rows_is_as_if_they_had_not_been_seen():
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(0)).double() + 3
    whole, part = (consumer_of(r, torch.ones(2, 7).double()) for r in (rows, rows[6:]))
    left = whole.without(rows[:6])
    torch.testing.assert_close(left.covariance, part.covariance)
    torch.testing.assert_close(left.mean, part.mean)
    assert left.rows == 14


def test_values_that_hardly_vary_around_a_large_one_can_be_left_out():
    # A random MnasNet's features: the covariance of the others was not positive any more.
    rows = 1000 + 1e-3 * torch.randn(24, 30, generator=torch.Generator().manual_seed(0)).double()
    left = consumer_of(rows, torch.ones(2, 30).double()).without(rows[:6])
    wanted = consumer_of(rows[6:], left.weight)
    torch.testing.assert_close(left.covariance, wanted.covariance, atol=1e-12, rtol=0)
    torch.testing.assert_close(left.mean, wanted.mean)


@pytest.mark.parametrize(("rows", "fits"), [(40, True), (39, True), (41, False), (0, False)])
def test_as_many_columns_as_rows_fit_anything(rows, fits):
    ones = torch.ones(3, 40).double()
    consumer = Consumer("head", ones, ones[0], ones.T @ ones, None, ones[:, 0], rows=rows)
    assert consumer.fits_anything is fits


def test_what_no_row_has_shown_of_the_old_weights_stays():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 12, generator=generator).double()
    weight = torch.randn(3, 12, generator=generator).double()
    kept = torch.arange(10)
    solved, shift = resolved(consumer_of(rows, weight), kept, 12, ridge=1e-6)
    hidden = torch.linalg.svd(rows[:, :10] - rows[:, :10].mean(0)).Vh[7:]  # no row varies along these
    torch.testing.assert_close(solved[:, :10] @ hidden.T, weight[:, :10] @ hidden.T)
    torch.testing.assert_close(rows @ solved.T + shift, rows @ weight.T, atol=1e-3, rtol=1e-3)
    assert not solved[:, 10:].any()


def test_a_batch_is_judged_by_weights_that_were_solved_on_the_others(few, monkeypatch):
    net, source, choice = few
    assert choice.consumers[0].fits_anything
    points = {}
    monkeypatch.setattr(
        sensitivity_curves, "_curve", lambda choice, found: points.update(found) or choice.loss
    )
    measured_curves(net, [choice], source)
    x = source.images
    with torch.no_grad():
        read, wanted = net.wide(net.stem(x).relu()).relu().double(), net(x)
    for k, value in points.items():
        kept, apart = choice.kept(k), []
        for own in torch.arange(SAMPLES).split(SAMPLES // 4):
            others = torch.tensor([i for i in range(SAMPLES) if i not in own.tolist()])
            solved, shift = resolved(consumer_of(read[others], choice.consumers[0].weight), kept, WIDTH)
            logits = (read[own] @ solved.T + shift).float() + net.head.bias.detach()
            apart.append(
                (wanted[own].softmax(1) * (wanted[own].log_softmax(1) - logits.log_softmax(1))).sum(1)
            )
        assert value == pytest.approx(float(torch.cat(apart).mean()), rel=1e-4)


def test_what_is_measured_is_what_other_samples_lose(few, monkeypatch):
    # Once the curve of EfficientNet-Lite0's head said that half of it is free: 500 images, 1280 columns.
    net, source, choice = few
    points = {}
    monkeypatch.setattr(
        sensitivity_curves, "_curve", lambda choice, found: points.update(found) or choice.loss
    )
    measured_curves(net, [choice], source)
    half, other = WIDTH // 2, drawn(2000, seed=2)
    with torch.no_grad():
        wanted = net(other)
        read = net.wide(net.stem(other).relu()).relu().double()
        solved, shift = resolved(choice.consumers[0], choice.kept(half), WIDTH)
        logits = (read @ solved.T + shift).float() + net.head.bias
        lost = float(divergence(logits, wanted).mean())
    assert lost / 2 < points[half] < 3 * lost


def test_the_loss_counts_where_few_units_are_left(few):
    choice = few[2]
    points = {k: 2.0 + k / 100 for k in (5, 10, 20)}
    curve = _curve(choice, {k: v * float(choice.loss[k]) for k, v in points.items()})
    torch.testing.assert_close(curve[5], choice.loss[5] * points[5] ** 0.5)
    assert (curve[1:] <= curve[:-1]).all()
    assert IMAGES.levels == sensitivity_curves.LEVELS


class Twins(nn.Module):
    """A head that runs for both of two inputs."""

    def __init__(self):
        super().__init__()
        self.one = Narrow()

    def forward(self, x, y):
        return torch.cat([self.one(x), self.one(y)], 1)


def test_a_head_that_runs_several_times_in_a_pass_is_judged_too():
    # Once a crash: every run was taken for a batch.
    x = drawn(16)
    found = coprune.prune(tiny.randomise(Twins()), calibration=[(x, x.flip(0))], keep_macs=0.5, force=True)
    assert any(len(g.kept) < g.size for g in found.plan.groups)
    assert found.result.stages[-1].macs <= 0.5 * found.result.stages[0].macs


@pytest.mark.parametrize(("samples", "said"), [(48, True), (200, False)])
def test_it_is_said_how_many_samples_would_be_enough(samples, said):
    torch.manual_seed(0)
    net = tiny.randomise(Narrow())
    found = coprune.prune(
        net, calibration=list(drawn(samples).split(20)), keep_macs=0.6, only=("wide",), latency_batches=(1,)
    )
    notes = [note.text for note in found.result.notes if note.code == Code.FEW_SAMPLES]
    due = (
        "layers that read no more places of the 38 calibration samples than they have inputs: 1 (head: 38 "
        "for 40); 40 samples or more make what is decided there surer"
    )
    assert notes == [due] * said
