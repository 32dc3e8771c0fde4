"""Spending for drawn curves and costs: within the target, nothing left over, near the best there is."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coprune.budget.allocation import lagrangian_allocation
from coprune.budget.cost import cost_model
from coprune.groups import find_units
from tiny import network, source

seeds = st.integers(0, 9999)
X = next(iter(source(90).batches(8)))[0]


def spend(curves, cost, target, *, slope=None, allowed=None):
    """The allocation of any cost; through three counts there is one polynomial of degree 2."""

    def asked(counts, group):
        k = counts[group]
        now, one, two = (cost({**counts, group: k + d}) for d in range(3))
        bend = (two - 2 * one + now) / 2
        return one - now - bend, bend

    ways = allowed or {g: range(1, len(curve)) for g, curve in curves.items()}
    return lagrangian_allocation(curves, cost, target, slope=slope or asked, ways=ways)


def drawn(seed, *, groups=3, convex=False):
    """Curves that fall to 0, and what a unit of each group costs."""
    generator = torch.Generator().manual_seed(seed)
    curves, prices = {}, {}
    for i in range(groups):
        size = int(torch.randint(1, 7, (1,), generator=generator))
        steps = torch.rand(size, generator=generator, dtype=torch.float64) ** 3
        if convex:
            steps = steps.sort().values
        curves[f"g{i}"] = torch.cat([torch.zeros(1).double(), steps.cumsum(0)]).flip(0)
        prices[f"g{i}"] = float(torch.randint(1, 5, (1,), generator=generator))
    return curves, prices


def additive(prices):
    return lambda counts: sum(prices[g] * counts[g] for g in prices)


def chained(prices):
    """Each layer costs its width times that of the one before, as in VGG."""

    def cost(counts):
        widths = [1, *(counts[g] for g in prices), 1]
        return float(
            sum(a * b * p for a, b, p in zip(widths[:-1], widths[1:], [*prices.values(), 1], strict=True))
        )

    return cost


def best(curves, cost, target):
    every = (
        dict(zip(curves, k, strict=True))
        for k in itertools.product(*(range(1, len(c)) for c in curves.values()))
    )
    return min(lost(curves, k) for k in every if cost(k) <= target)


def lost(curves, counts):
    return sum(float(curves[g][counts[g]]) for g in curves)


def target_of(curves, cost, share):
    least = cost(dict.fromkeys(curves, 1))
    return least + share * (cost({g: len(c) - 1 for g, c in curves.items()}) - least)


@given(seed=seeds, share=st.floats(0, 1), convex=st.booleans(), coupled=st.booleans())
def test_within_the_target_and_no_unit_more_would_fit(seed, share, convex, coupled):
    curves, prices = drawn(seed, convex=convex)
    cost = chained(prices) if coupled else additive(prices)
    target = target_of(curves, cost, share)
    found = spend(curves, cost, target)
    assert all(1 <= found[g] <= len(curve) - 1 for g, curve in curves.items())
    assert cost(found) <= target
    for g, curve in curves.items():
        if found[g] < len(curve) - 1:
            assert cost({**found, g: found[g] + 1}) > target


@given(seed=seeds, share=st.floats(0, 1))
def test_convex_curves_are_spent_on_as_well_as_trying_everything_but_for_one_unit(seed, share):
    curves, prices = drawn(seed, convex=True)
    cost = additive(prices)
    target = target_of(curves, cost, share)
    found = lost(curves, spend(curves, cost, target))
    # The relaxed problem bounds both; it is missed by less than one unit of one group.
    largest = max(float((c[1:-1] - c[2:]).max()) if len(c) > 2 else 0.0 for c in curves.values())
    optimum = best(curves, cost, target)
    assert optimum - 1e-12 <= found <= optimum + largest + 1e-12


def test_on_average_any_curve_is_spent_on_nearly_as_well_as_trying_everything():
    for make in (additive, chained):
        found = optimum = 0.0
        for seed in range(40):
            curves, prices = drawn(seed)
            cost = make(prices)
            target = target_of(curves, cost, 0.5)
            found += lost(curves, spend(curves, cost, target))
            optimum += best(curves, cost, target)
        assert optimum <= found <= 1.15 * optimum


@given(seed=seeds, share=st.floats(0, 1), unit=st.sampled_from([1e-6, 1e9]))
def test_the_unit_of_cost_does_not_matter(seed, share, unit):
    curves, prices = drawn(seed)
    cost = additive(prices)
    target = target_of(curves, cost, share) + 0.5  # no tie that rounding could break
    found = spend(curves, lambda k: unit * cost(k), unit * target)
    assert found == spend(curves, cost, target)


@settings(max_examples=10)
@given(seed=seeds)
def test_a_larger_budget_never_loses_more_on_convex_curves(seed):
    curves, prices = drawn(seed, convex=True)
    cost = additive(prices)
    losses = [lost(curves, spend(curves, cost, target_of(curves, cost, s / 8))) for s in range(9)]
    assert losses[-1] == 0
    largest = max(float((c[1:-1] - c[2:]).max()) if len(c) > 2 else 0.0 for c in curves.values())
    assert all(b <= a + largest + 1e-12 for a, b in itertools.pairwise(losses))


def test_a_budget_that_everything_fits_keeps_everything():
    curves, prices = drawn(1)
    assert spend(curves, additive(prices), 1e9) == {g: len(c) - 1 for g, c in curves.items()}


def test_the_least_there_is():
    curves, prices = drawn(2)
    cost = additive(prices)
    assert spend(curves, cost, cost(dict.fromkeys(curves, 1))) == dict.fromkeys(curves, 1)


def test_a_group_whose_units_cost_nothing_loses_none():
    curve = torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    assert spend({"a": curve, "b": curve}, lambda k: k["a"], 2.0) == {"a": 2, "b": 3}


def test_flat_curves_give_up_their_units_first():
    flat = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    steep = torch.tensor([9.0, 6.0, 4.0, 2.0, 0.0], dtype=torch.float64)
    assert spend({"flat": flat, "steep": steep}, lambda k: k["flat"] + k["steep"], 5.0) == {
        "flat": 1,
        "steep": 4,
    }


@given(seed=seeds, share=st.floats(0, 1))
def test_a_layer_that_reads_and_writes_one_stream_is_paid_for_exactly(seed, share):
    curves, prices = drawn(seed, groups=2, convex=True)

    def cost(counts):
        return float(sum(p * counts[g] ** 2 for g, p in prices.items()))

    target = target_of(curves, cost, share)
    found = spend(curves, cost, target)
    assert cost(found) <= target
    largest = max(float((c[1:-1] - c[2:]).max()) if len(c) > 2 else 0.0 for c in curves.values())
    assert lost(curves, found) <= best(curves, cost, target) + largest + 1e-12


@given(seed=seeds, share=st.floats(0, 1), step=st.integers(1, 4))
def test_only_allowed_counts_are_taken(seed, share, step):
    curves, prices = drawn(seed)
    cost = additive(prices)
    allowed = {g: sorted({*range(step, len(c), step), len(c) - 1}) for g, c in curves.items()}
    least = cost({g: k[0] for g, k in allowed.items()})
    target = least + share * (cost({g: len(c) - 1 for g, c in curves.items()}) - least)
    found = spend(curves, cost, target, allowed=allowed)
    assert all(found[g] in allowed[g] for g in curves)
    assert cost(found) <= target
    for g, ways in allowed.items():
        if found[g] < ways[-1]:
            assert cost({**found, g: ways[ways.index(found[g]) + 1]}) > target


@given(seed=seeds, share=st.floats(0, 1))
def test_slopes_that_are_given_lead_to_what_asked_ones_do(seed, share):
    curves, prices = drawn(seed)
    cost = additive(prices)
    target = target_of(curves, cost, share)
    given_slopes = spend(curves, cost, target, slope=lambda _, g: (prices[g], 0.0))
    assert given_slopes == spend(curves, cost, target)


def test_what_is_left_over_goes_to_who_gains_most_for_its_cost():
    # The hull of "b" is one jump of five units, dearer than what is left; its single units still gain more
    # for their cost (.3 each for 1) than the one of "a" that would take everything (.5 for 4).
    curves = {
        "a": torch.tensor([9.0, 0.5, 0.0], dtype=torch.float64),
        "b": torch.tensor([9.0, 2.0, 1.7, 1.4, 1.1, 0.8, 0.0], dtype=torch.float64),
    }
    assert spend(curves, lambda k: 4 * k["a"] + k["b"], 9.0) == {"a": 1, "b": 5}


def test_the_square_of_a_count_is_paid_for():
    # Units of a stream that is read and written get dearer the more there are. All of them taken at the price
    # of the next one, the first group would keep 5 units and the second 2, which loses .06 more.
    curves, prices = drawn(130, groups=2, convex=True)

    def cost(counts):
        return float(sum(p * counts[g] ** 2 for g, p in prices.items()))

    target = target_of(curves, cost, 0.5)
    found = spend(curves, cost, target)
    assert found == {"g0": 4, "g1": 4}
    assert lost(curves, found) == best(curves, cost, target)


def falling(*steps: float) -> torch.Tensor:
    return torch.tensor([*steps, 0.0], dtype=torch.float64)


CURVES = {
    "a": falling(9.0, 4.0, 2.0, 1.0),
    "b": falling(20.0, 3.0, 2.5, 2.4),
    "c": falling(5.0, 4.8, 4.0, 0.1),
}
PRICES = {"a": 3.0, "b": 1.0, "c": 2.0}


@pytest.mark.parametrize("target", [7.0, 10.0, 13.0, 18.0, 24.0])
def test_spending_is_as_good_as_trying_everything(target):
    def cost(counts):
        return sum(PRICES[g] * counts[g] for g in CURVES)

    def loss(counts):
        return sum(float(CURVES[g][counts[g]]) for g in CURVES)

    found = spend(CURVES, cost, target)
    every = (dict(zip(CURVES, k, strict=True)) for k in itertools.product(range(1, 5), repeat=3))
    best = min(loss(k) for k in every if cost(k) <= target)
    assert cost(found) <= target
    # What lies off the lower hull of the curves is reached by single units only.
    assert loss(found) <= best + 1.0


@pytest.mark.parametrize("target", [0.15, 0.3, 0.5, 0.9, 1.0])
def test_spending_on_chained_layers_stays_within_the_target(target):
    model = network("vgg16_bn")
    groups = find_units(model, X[:1]).groups
    cost = cost_model(model, X[:1], groups)
    # Errors of the consumers fall with every unit, but not evenly.
    curves = {
        g.name: torch.linspace(1, 0, g.size + 1, dtype=torch.float64) ** (1 + i % 3)
        for i, g in enumerate(groups)
    }
    counts = spend(curves, cost.ratio, target)
    assert cost.ratio(counts) <= target
    more = [{**counts, g: counts[g] + 1} for g in counts if counts[g] < cost.sizes[g]]
    assert all(cost.ratio(k) > target for k in more)


def test_single_units_are_added_by_what_they_gain_for_their_cost():
    # Off the lower hull both curves are reached by single units only: "dear" gains more, "cheap" more for
    # its cost, and there is room for one of the first or three of the second.
    dear = torch.tensor([9.0, 8.0, 6.0, 0.0], dtype=torch.float64)
    cheap = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 0.0], dtype=torch.float64)
    curves, prices = {"dear": dear, "cheap": cheap}, {"dear": 3.0, "cheap": 1.0}
    ways = {"dear": range(1, 4), "cheap": range(1, 6)}
    slope = {"dear": (3.0, 0.0), "cheap": (1.0, 0.0)}
    found = lagrangian_allocation(
        curves, additive(prices), 7.0, slope=lambda _, group: slope[group], ways=ways
    )
    assert found == {"dear": 1, "cheap": 4}
