"""What processes gather, count, solve and train together is what one does alone.

Each of the processes runs the same function; the twin runs it here. Statistics agree to the rounding of
float64, counts and choices exactly, and all processes hold the same bits.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tiny
from coprune.budget.sensitivity_curves import measured_curves
from coprune.data import ArraySource
from coprune.data.source import drawn_order
from coprune.distributed.collectives import joined_rows, merged, summed
from coprune.distributed.world import own_range, rank, world
from coprune.groups import find_units
from coprune.measure import evaluate
from coprune.methods.cahp.salience import HeadSalience
from coprune.methods.cahp.signatures import HeadSignatures
from coprune.methods.complementary import COMPLEMENTARY, ComplementarySettings
from coprune.recovery import Pair, kept_outputs, least_squares, reconstruct, reestimate_batchnorm
from coprune.recovery.channel_least_squares import channel_least_squares
from coprune.recovery.ridge import Line, Target, solve
from coprune.statistics import Calibration, ClassMoments, ConsumerCovariance, Importance, Profile, collect
from coprune.surgery import cut
from coprune.training import DivergedError, Recipe, fit
from processes import together
from tiny_heads import bert, bert_groups, sentences

SAMPLES = tiny.source(70)
IMAGE = torch.zeros(1, 1, 12, 12)
SIZE = 16  # five batches, the last one short


def statistics():
    net = tiny.network("resnet20")
    groups = find_units(net, IMAGE).groups[:4]
    wanted = (
        ClassMoments(),
        ConsumerCovariance(6, classes=True),
        Importance("taylor"),
        Importance("hessian"),
    )
    found = collect(Calibration(net, groups, SAMPLES, 3, batch_size=SIZE), wanted)
    texts = bert()
    wanted = (HeadSignatures(4), HeadSalience(0.5), ConsumerCovariance(3))
    of_texts = collect(Calibration(texts, bert_groups(texts), sentences(50), 3, batch_size=8), wanted)
    return {f"{of}/{key}": dict(t) for of, kind in (("i", found), ("t", of_texts)) for key, t in kind.items()}


def counted():
    net = tiny.network("resnet20")
    score = evaluate(net, SAMPLES, batch_size=SIZE)
    reestimate_batchnorm(net, SAMPLES, batch_size=SIZE)
    return (score.value, score.samples), score.sums, tiny.state_of(net)


def chosen():
    """Curves of every group, and a recovered network."""
    net = tiny.network("resnet20")
    groups = find_units(net, IMAGE).groups[:3]
    settings = ComplementarySettings()
    tensors = collect(Calibration(net, groups, SAMPLES, 3, batch_size=SIZE), COMPLEMENTARY.needs(settings))
    choices = COMPLEMENTARY.choose(Profile(groups, tensors), settings, 0)
    curves = measured_curves(net, choices, SAMPLES)
    decisions = tuple(choice.keep(choice.group.size // 2, why="asked") for choice in choices)
    small = cut(net, decisions)
    layers = least_squares(Pair(small, net, kept_outputs(net, decisions)), SAMPLES, rows=2000)
    # In front of all that was cut nothing is wrong, and float32's rounding decides which weights are better.
    changed = [layer.changed for layer in layers if layer.before > 1e-10]
    alone = cut(net, decisions)
    kept = kept_outputs(net, decisions)
    channel_least_squares(Pair(alone, net, kept, decisions), SAMPLES, rows=2000)
    return curves, [d.kept for d in decisions], tiny.state_of(small), changed, tiny.state_of(alone)


def pieces():
    """Parts that only some processes have; sums and rows."""
    mine = {"all": {"n": torch.tensor([rank() + 1.0])}} | (
        {"odd": {"n": torch.ones(2)}} if rank() % 2 else {}
    )
    whole = merged(mine, lambda a, b: {"n": a["n"] + b["n"]})
    rows = joined_rows(torch.arange(float(rank() + 1)).view(-1, 1))
    return (
        {k: v["n"].tolist() for k, v in whole.items()},
        rows.flatten().tolist(),
        float(summed(torch.ones(()))),
    )


def solved():
    """One layer's regression on shares of its rows, with fewer and with more rows than values."""
    found = []
    for width in (12, 90):
        draw = torch.Generator().manual_seed(width)
        x = torch.randn(80, width, generator=draw, dtype=torch.float64)
        wanted = torch.randn(80, 5, generator=draw, dtype=torch.float64) + x[:, :5]
        other = 0.1 * torch.randn(80, 5, generator=draw, dtype=torch.float64)
        own = [*own_range(64), *(64 + i for i in own_range(16))]
        target = Target(
            wanted[own], torch.ones(5).double(), torch.zeros(5).double(), other[own], rectified=True
        )
        weight = torch.zeros(5, width, dtype=torch.float64)
        solution = solve(
            x[own],
            target,
            Line(weight, torch.zeros(5).double()),
            held_back=len(own_range(16)),
            intercept=True,
            shared=world() > 1,
        )
        found.append(solution)
    return [(s.weight, s.bias, s.before, s.after, s.ridge) for s in found]


class Plain(nn.Module):
    """Without batch norm, and with a layer that nothing reads."""

    def __init__(self, hidden=8):
        super().__init__()
        self.first, self.last = nn.Linear(144, hidden), nn.Linear(hidden, 3)
        self.idle = nn.Linear(hidden, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x.flatten(1))))


def trained():
    """33 samples in batches of 8, hidden outputs too: the last has one sample, and some processes none."""
    few = SAMPLES.take(torch.arange(33))
    recipe = Recipe(epochs=2, batch_size=8, lr=0.05, distill=0.5, clip=1.0, match=2.0)
    net = tiny.randomise(Plain(5))
    log = fit(net, few, recipe, seed=0, teacher=tiny.randomise(Plain(), seed=1))
    normed = tiny.randomise(tiny.Flattened())
    fit(normed, few, Recipe(epochs=1, batch_size=8), seed=0)
    return tiny.state_of(net), log.loss, log.accuracy, log.steps, tiny.state_of(normed)


def adjusted():
    """All layers together, on samples of which some batches are not for everybody."""
    net = tiny.randomise(Plain(5))
    did = reconstruct(Pair(net, tiny.randomise(Plain(), seed=1), {}), SAMPLES, visits=310)
    return tiny.state_of(net), did


class Overflowing(Plain):
    """NaN, on any machine, where a value is too large to be multiplied by ten."""

    def forward(self, x):
        return super().forward(x + (10 * x - 10 * x))


def diverged():
    """How a training ends in which the last image, and so one process only, is too bright, and gives NaN."""
    images = SAMPLES.images[:16].float()
    order, _ = drawn_order(16, seed=0, epoch=0, fraction=1.0)
    images[order[-1]] = 3e38
    net = tiny.randomise(Overflowing())
    try:
        fit(net, ArraySource(images, SAMPLES.labels[:16]), Recipe(epochs=2, batch_size=8, lr=0.05), seed=0)
    except DivergedError as error:
        return str(error), net.training
    return None


def everything():
    return statistics(), counted(), chosen(), pieces(), solved(), trained(), adjusted()


def test_a_loss_that_is_nan_in_one_process_ends_all_of_them_at_that_step():
    line = "the loss became nan after 2 steps; lower the learning rate (0.05)"
    assert diverged() == (line, False)
    assert together(2, diverged) == [(line, False)] * 2


@pytest.fixture(scope="module")
def alone():
    return everything()


@pytest.fixture(scope="module", params=[2, 4])
def several(request):
    return together(request.param, everything)


def close(found, wanted, rtol):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        scale = float(value.double().abs().max()) if value.numel() else 0.0
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def flat(value):
    """Every tensor and number of nested values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in flat(v)]
    return [value]


def test_all_processes_hold_the_same_bits(several):
    first = flat(several[0])
    for other in map(flat, several[1:]):
        assert len(first) == len(other)
        for a, b in zip(first, other, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_statistics_are_those_of_one_process(alone, several):
    for key, wanted in alone[0].items():
        # Torch-Pruning's importances are computed in float32 from what was summed in float64.
        close(several[0][0][key], wanted, 1e-6 if "importance" in key else 1e-12)


def test_counts_are_exact(alone, several):
    (score, right, norms), (wanted, wanted_right, wanted_norms) = several[0][1], alone[1]
    assert score == wanted
    assert torch.equal(right, wanted_right)
    close(norms, wanted_norms, 1e-6)


def test_curves_choice_and_recovery(alone, several):
    curves, kept, weights, changed, by_itself = several[0][2]
    wanted, wanted_kept, wanted_weights, wanted_changed, wanted_by_itself = alone[2]
    close(curves, wanted, 1e-9)
    assert kept == wanted_kept
    assert changed == wanted_changed
    close(weights, wanted_weights, 1e-3)
    close(by_itself, wanted_by_itself, 1e-3)


def test_what_only_some_have_is_merged_too(several):
    count = len(several)
    found, rows, total = several[0][3]
    assert found == {"all": [sum(range(1, count + 1))], "odd": [count // 2] * 2}
    assert rows == [float(i) for r in range(count) for i in range(r + 1)]
    assert total == count


def test_regressions_on_shares_of_the_rows(alone, several):
    for found, wanted in zip(several[0][4], alone[4], strict=True):
        torch.testing.assert_close(found[:2], wanted[:2], rtol=1e-8, atol=1e-10)
        assert found[2:] == pytest.approx(wanted[2:], rel=1e-9)


def test_training_is_that_of_one_process(alone, several):
    weights, loss, accuracy, steps, normed = several[0][5]
    close(weights, alone[5][0], 1e-5)
    assert loss == pytest.approx(alone[5][1], rel=1e-4)
    assert accuracy == alone[5][2]
    assert steps == alone[5][3]
    weights, did = several[0][6]
    close(weights, alone[6][0], 1e-5)
    assert (did.samples, did.passes, did.changed) == (61, 5, True)
    assert did.after == pytest.approx(alone[6][1].after, rel=1e-4)
    assert did.after < did.before
    # Batch norms see their share of a batch only, so these are other weights, but usable ones.
    assert all(bool(t.isfinite().all()) for t in normed.values())
