"""``uniform``: groups of one kind and size keep the same number of units."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
import tiny_transformers as zoo
from coprune.budget.cost import CostModel, LayerShare, cost_model
from coprune.budget.counts import Budget
from coprune.budget.decide import counts, decide
from coprune.errors import UserError
from coprune.groups import find_units
from coprune.methods.base import Ranking, Untouched
from coprune.methods.joint import JointRanking
from coprune.plan import Knee

LAYERS = (
    LayerShare("a", 40, 5, {"a": 1.0}),
    LayerShare("b", 240, 7, {"b": 1.0}, {"a": 1.0}),
    LayerShare("c", 60, 9, {"c": 0.5}, {"b": 1.0}),
    LayerShare("rest", 7, 1),
)


def cost(**ties):
    return CostModel(LAYERS, {"a": 4, "b": 4, "c": 6}, ties)


def test_tied_groups_cost_what_they_cost_together_by_hand():
    free, tied = cost(), cost(a="t", b="t").tied()
    assert tied.sizes == {"t": 4, "c": 6}
    for k in range(1, 5):
        assert tied.total({"t": k, "c": 3}) == pytest.approx(free.total({"a": k, "b": k, "c": 3}))
        # 240 MACs are read and written by the pair: of degree 2 in k.
        linear, bend = tied.slope({"t": k, "c": 3}, "t")
        more = tied.ratio({"t": k + 1, "c": 3}) - tied.ratio({"t": k, "c": 3})
        assert linear + bend == pytest.approx(more)
        assert bend > 0
    assert cost().tied() == cost()


class Of:
    """A choice with a knee."""

    def __init__(self, name, size, knee=None):
        self.group, self.knee = tiny.group(size, name), None if knee is None else Knee(k=knee, rule="x")


CHOICES = [Of("a", 4, 1), Of("b", 4, 4), Of("c", 6, 2)]


def test_knees_are_met_in_the_mean():
    assert counts(Budget(), cost(a="t", b="t"), CHOICES)[0] == {"a": 3, "b": 3, "c": 2}
    assert counts(Budget(), cost(), CHOICES)[0] == {"a": 1, "b": 4, "c": 2}


@given(
    target=st.floats(0.3, 1.0),
    allocation=st.sampled_from(["uniform", "measured"]),
    seed=st.integers(0, 999),
    quantity=st.sampled_from(["keep_macs", "keep_params"]),
)
def test_one_count_for_all_within_the_budget_and_no_more_would_fit(target, allocation, seed, quantity):
    model = cost(a="t", b="t")
    draw = torch.Generator().manual_seed(seed)
    curves = {
        n: torch.rand(size + 1, generator=draw, dtype=torch.float64).sort(descending=True).values
        for n, size in model.sizes.items()
    }
    budget = Budget(**{quantity: max(target, 0.5)})
    found, _ = counts(budget, model, CHOICES, allocation=allocation, curves=curves)
    assert found["a"] == found["b"]
    of = quantity.removeprefix("keep_")
    assert model.ratio(found, of) <= max(target, 0.5)
    for grown in ({"a": found["a"] + 1, "b": found["b"] + 1}, {"c": found["c"] + 1}):
        if all(k <= model.sizes[n] for n, k in grown.items()):
            assert model.ratio({**found, **grown}, of) > max(target, 0.5)


def test_a_group_that_stays_whole_ties_nobody():
    whole = Untouched(tiny.group(4, "b"), "why", None)
    found, _ = counts(Budget(keep_units=0.5), cost(a="t", b="t"), [CHOICES[0], whole, CHOICES[2]])
    assert found == {"a": 2, "c": 3}


def test_groups_of_a_kind_and_size_are_tied():
    model, example = zoo.transformer("llama"), zoo.inputs("llama")
    groups = find_units(model, example).groups
    ties = cost_model(model, example, groups, uniform=True).ties
    assert {ties[g.name] for g in groups if g.kind == "heads"} == {"heads of 4"}
    assert {ties[g.name] for g in groups if g.kind == "neurons"} == {"neurons of 40"}
    assert not cost_model(model, example, groups).ties


def test_a_choice_over_all_groups_cannot_be_tied():
    choice = JointRanking((tiny.group(4, "a"),), (torch.arange(4.0),), "x")
    with pytest.raises(UserError, match="uniform is of each group"):
        decide(Budget(keep_units=0.5), cost(a="t"), choice)


def test_rankings_that_are_tied_each_keep_their_own():
    scores = {"a": [4.0, 3, 2, 1], "b": [1.0, 2, 3, 4]}
    choices = [Ranking(tiny.group(4, n), torch.tensor(s), "x") for n, s in scores.items()]
    model = CostModel(LAYERS[:2], {"a": 4, "b": 4}, {"a": "t", "b": "t"})
    kept = {d.name: d.kept for d in decide(Budget(keep_macs=0.3), model, choices)}
    assert kept == {"a": (0, 1), "b": (2, 3)}
