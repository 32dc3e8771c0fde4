"""The searches on curves that are known, also on curves that do not fall steadily."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.budget.search import (
    KNEE_SHARES,
    search_drop,
    search_knee,
    search_latency,
)
from coprune.measure.intervals import least_provable, paired_drop, tango_interval
from search_curves import SAMPLES, UNITS, World, share_of, true_loss

BASE = torch.ones(SAMPLES, dtype=torch.bool)
SEEDS = st.integers(0, 10_000)


def drawn(seed: int) -> Callable[[float], float]:
    """A curve that knows no order: any value in [0, 1] at any size."""
    values = torch.rand(UNITS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    return lambda share: values[round(share * UNITS) - 1]


def judging(right, base=BASE):
    """What a search asks for, of which judging samples a model has right."""

    def judge(decisions):
        pruned = right(decisions)
        return float(pruned.double().mean()), paired_drop(base, pruned)

    return judge


def drop(world: World, limit: float, **more):
    return search_drop(world.least, 1.0, limit, decide=world.decide, judge=judging(world.judge), **more)


def twin_of_tango(lost: int, gained: int, samples: int, delta: float) -> float:
    """The score statistic with the nuisance share found by trying, not by the closed form."""
    share = torch.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001, dtype=torch.float64)
    q = share[1:-1]
    likelihood = (
        lost * (q + delta).log() + gained * q.log() + (samples - lost - gained) * (1 - 2 * q - delta).log()
    )
    best = float(q[likelihood.argmax()])
    return (lost - gained - samples * delta) / math.sqrt(samples * (2 * best + delta - delta * delta))


@given(lost=st.integers(0, 12), gained=st.integers(0, 12), both=st.integers(3, 200))
def test_the_ends_of_the_interval_are_where_the_score_is_the_quantile(lost, gained, both):
    samples = lost + gained + both
    low, high = tango_interval(lost, gained, samples, z=1.2816)
    assert low <= (lost - gained) / samples <= high
    assert twin_of_tango(lost, gained, samples, high) == pytest.approx(-1.2816, abs=0.02)
    assert twin_of_tango(lost, gained, samples, low) == pytest.approx(1.2816, abs=0.02)
    # The other way round it is the same interval with the other sign.
    assert tango_interval(gained, lost, samples, z=1.2816) == (pytest.approx(-high), pytest.approx(-low))


def test_paired_drop_by_hand():
    # One pair lost twice, one gained: differences 0, 1, 1, −1 of four samples.
    lost, low, high = paired_drop(
        torch.tensor([True, True, True, False]), torch.tensor([True, False, False, True])
    )
    assert lost == 25
    assert -100 < low < 25 < high < 100


@pytest.mark.parametrize("samples", [100, 1000])
def test_no_disagreement_seen_is_not_certainty(samples):
    same = torch.arange(samples) < 0.9 * samples
    # score² = n δ / (1 − δ) = z²
    end = 100 * 1.2816**2 / (samples + 1.2816**2)
    assert paired_drop(same, same) == (0, pytest.approx(-end), pytest.approx(end))
    assert least_provable(samples) == pytest.approx(end)


@pytest.mark.parametrize(("lost", "gained"), [(9, 0), (0, 9), (9, 9)])
def test_when_every_sample_differs_the_interval_ends_inside(lost, gained):
    low, high = tango_interval(lost, gained, lost + gained, z=1.2816)
    assert -1 <= low <= (lost - gained) / (lost + gained) <= high <= 1


def test_samples_that_both_get_wrong_say_nothing_about_the_drop():
    base = torch.tensor([True, True, False, False])
    assert paired_drop(base, torch.tensor([False, True, True, False]))[0] == 0
    assert paired_drop(base, torch.tensor([True, True, True, False]))[0] == -25


@pytest.mark.parametrize("samples", [200, 1000])
@pytest.mark.parametrize("loss", [0.01, 0.03, 0.1])
def test_a_model_at_the_limit_is_rarely_accepted(samples, loss):
    """Exact: over all outcomes of a binomial number of lost samples, weighed by their probability.

    One time in ten is meant; whole samples make it a little more or less.
    """
    base, accepted = torch.ones(samples, dtype=torch.bool), 0.0
    for lost in range(samples):
        pruned = torch.arange(samples) >= lost
        found = search_drop(
            0.5,
            1.0,
            100 * loss,
            decide=World(lambda s: s).decide,
            judge=judging(lambda _, p=pruned: p, base),
            probes=1,
        )
        if not found.probes[1].ok:
            break
        accepted += math.comb(samples, lost) * loss**lost * (1 - loss) ** (samples - lost)
    assert 0.04 <= accepted <= 0.14


@pytest.mark.parametrize("churn", [0.0, 0.005, 0.02])
def test_a_whole_search_keeps_its_promise(churn):
    """Simulated: the true loss grows with the cut; the models also differ by chance, both ways.

    Eight looks at the same samples, the smallest accepted model taken: still at most one of ten ends
    above the limit, and not by leaving nearly everything in.
    """
    samples, runs, above, left = 2000, 150, 0, 0.0
    for run in range(runs):
        draw = torch.Generator().manual_seed(run)
        base = torch.rand(samples, generator=draw) < 0.94
        rank = torch.rand(samples, generator=draw)

        def judge(decisions, base=base, rank=rank, draw=draw):
            chance = torch.rand(samples, generator=draw)
            gone = base & ((rank < true_loss(share_of(decisions)) / 0.94) | (chance < churn / 0.94))
            won = ~base & (chance < churn / 0.06)
            return (base & ~gone) | won

        world = World(lambda share: share)
        found = search_drop(0.05, 0.94, 1.0, decide=world.decide, judge=judging(judge, base))
        taken = true_loss(share_of(found.decisions))
        above += taken > 0.01
        left += taken / runs
    assert above <= 0.1 * runs
    assert left > 0.0035


def test_the_probes_of_a_step_at_a_fifth_are_a_bisection_of_the_logarithm():
    world = World(lambda share: 1.0 if share >= 0.2 else 0.5, least=1 / 16)
    found = drop(world, 1.0)
    targets = [1 / 16, 1 / 4, 1 / 8, 2**-2.5, 2**-2.25, 2**-2.375, 2**-2.3125, 2**-2.34375]
    assert world.asked == pytest.approx([1.0, *targets])
    assert [p.ok for p in found.probes] == [True, False, True, False, False, True, False, True, False]
    assert [p.macs for p in found.probes] == [1.0, *world.tried]
    assert [p.chosen for p in found.probes].index(True) == 7
    assert sum(p.chosen for p in found.probes) == 1
    assert share_of(found.decisions) == found.probes[7].macs == math.floor(UNITS * 2**-2.3125) / UNITS


@pytest.mark.parametrize("limit", [1.0, 3.0, 8.0])
def test_finds_the_edge_of_a_falling_curve(limit):
    found = drop(World(lambda share: 1 - 0.1 * (1 - share) ** 2, least=0.01), limit)
    taken = share_of(found.decisions)
    # Bisection ends within 2 % of the smallest model that is surely good enough …
    bad = [p.macs for p in found.probes if not p.ok]
    assert max(bad) < taken <= 1.04 * max(bad)
    # … which is a little larger than one that loses exactly the limit.
    assert taken >= 1 - (limit / 10) ** 0.5


def test_everything_goes_in_one_probe():
    found = drop(World(lambda share: 1.0), 1.0)
    assert share_of(found.decisions) == 1 / UNITS
    assert [p.chosen for p in found.probes] == [False, True]


def test_nothing_goes_when_every_probe_loses():
    found = drop(World(lambda share: 1.0 if share == 1.0 else 0.2), 5.0)
    assert share_of(found.decisions) == 1
    assert [p.ok for p in found.probes] == [True] + [False] * 8
    assert [p.chosen for p in found.probes] == [True] + [False] * 8


def test_a_loss_within_the_limit_is_not_enough_when_the_samples_are_few():
    few = torch.ones(100, dtype=torch.bool)
    world = World(lambda share: 0.5)

    def judged(lost):
        pruned = torch.arange(100) >= lost
        found = search_drop(
            0.5, 1.0, 1.0, decide=world.decide, judge=judging(lambda _: pruned, few), probes=1
        )
        return found.probes[1]

    # Nothing lost: z² / (100 + z²) is 1.6 points, still beyond the limit of 1.
    assert not judged(0).ok
    probe = judged(4)
    assert (probe.drop, probe.value) == (4, pytest.approx(0.96))
    assert probe.low < 4 < probe.high
    assert not probe.ok


@given(SEEDS, st.floats(0, 50))
def test_only_a_model_that_was_tried_and_accepted_is_handed_back(seed, limit):
    world = World(drawn(seed))
    found = drop(world, limit)
    taken = share_of(found.decisions)
    assert taken in [1.0, *world.tried]
    (chosen,) = [p for p in found.probes if p.chosen]
    assert chosen.ok
    assert chosen.macs == taken == min(p.macs for p in found.probes if p.ok)
    assert chosen.drop <= limit + 1e-9


@given(st.floats(1e-4, 0.9))
def test_the_smallest_probe_is_never_below_what_can_be_reached(least):
    # Once a bug: exp(log(x)) is a little below x for a fifth of all x, and --max-drop ended with
    # "cannot be reached".
    world = World(lambda share: 1.0, least=least)
    drop(world, 1.0)
    assert world.asked[1] >= least


def knee(world: World):
    return search_knee(world.least, 1.0, decide=world.decide, judge=judging(world.judge))


def test_the_knee_of_a_curve_with_a_corner_is_the_corner():
    # 90 % down to 37 % of the MACs, then two points for every point of MACs.
    world = World(lambda share: 0.9 - 2 * max(0.0, 0.37 - share))
    found, rule = knee(world)
    assert world.asked == [1.0, *KNEE_SHARES]
    assert world.tried == [p.macs for p in found.probes[1:]] == list(KNEE_SHARES)
    assert all(p.ok for p in found.probes)
    assert [p.macs for p in found.probes if p.chosen] == [0.37]
    assert share_of(found.decisions) == 0.37
    assert rule.startswith("kneedle")


@given(st.sampled_from([0.62, 0.48, 0.37, 0.28, 0.21]), st.floats(0.5, 3))
def test_any_corner_is_found(corner, slope):
    found, _ = knee(World(lambda share: max(0.0, 1 - slope * max(0.0, corner - share))))
    assert share_of(found.decisions) == corner


def test_shares_that_cannot_be_reached_are_not_tried():
    world = World(lambda share: 0.9 - max(0.0, 0.62 - share), least=0.3)
    found, _ = knee(world)
    assert world.tried == [0.8, 0.62, 0.48, 0.37]
    assert share_of(found.decisions) in [1.0, *world.tried]


@pytest.mark.parametrize(("loses", "taken"), [(0.0, 0.9), (0.2, 1.0)])
def test_where_little_can_go_all_of_it_is_tried(loses, taken):
    # Once a bug: nothing was tried above the first step, and the notes spoke of too few points.
    world = World(lambda share: 1 - loses * (share < 1), least=0.9)
    found, _ = knee(world)
    assert world.tried == [0.9]
    assert share_of(found.decisions) == taken


@pytest.mark.parametrize("curve", [lambda share: share**2, lambda share: share**1.1])
def test_a_curve_without_a_knee_keeps_everything_and_says_so(curve):
    found, rule = knee(World(curve))
    assert share_of(found.decisions) == 1
    assert found.probes[0].chosen
    assert "all units stay" in rule


def test_too_few_points_keep_everything_and_say_so():
    found, rule = knee(World(lambda share: 0.9, least=0.7))
    assert share_of(found.decisions) == 1
    assert rule == "only 2 points on the curve; all units stay"


@given(SEEDS)
def test_the_knee_is_a_model_that_was_tried(seed):
    world = World(drawn(seed))
    found, _ = knee(world)
    (chosen,) = [p for p in found.probes if p.chosen]
    assert share_of(found.decisions) == chosen.macs
    assert chosen.macs in [1.0, *world.tried]


def latency(world: World, limit: float, **more):
    return search_latency(world.least, limit, decide=world.decide, time_ms=world.time_ms, **more)


def test_fast_enough_already_is_one_measurement():
    world = World(lambda share: 10 * share)
    decisions, ms, smallest = latency(world, 10.0)
    assert (share_of(decisions), ms, smallest) == (1.0, 10, 10)
    assert world.tried == [1.0]


def test_the_largest_model_that_is_fast_enough_by_bisection():
    world = World(lambda share: 1 + 9 * share, least=0.2)
    decisions, ms, smallest = latency(world, 5.5, probes=5)
    assert world.asked == pytest.approx([1.0, 0.2, 0.6, 0.4, 0.5, 0.55, 0.525])
    assert share_of(decisions) == 0.5
    assert (ms, smallest) == pytest.approx((5.5, 2.8))


def test_out_of_reach_hands_back_the_smallest_and_its_time():
    world = World(lambda share: 3 + share, least=0.25)
    decisions, ms, smallest = latency(world, 1.0)
    assert (share_of(decisions), ms, smallest) == (0.25, 3.25, 3.25)
    assert world.tried == [1.0, 0.25]


@given(SEEDS, st.floats(0.01, 1))
def test_a_slow_model_is_only_handed_back_when_the_smallest_is_slow(seed, limit):
    world = World(drawn(seed), least=0.05)
    decisions, ms, smallest = latency(world, limit)
    assert share_of(decisions) in world.tried
    assert ms == world.curve(share_of(decisions))
    assert ms <= limit or (ms == smallest and share_of(decisions) == 0.05)
