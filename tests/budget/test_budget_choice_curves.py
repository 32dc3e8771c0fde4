"""Any choice lends itself to the measured allocation: what its consumers lose for every k."""

from __future__ import annotations

import pytest
import torch

import tiny
from coprune.budget.choice_curves import READS, CurvedChoice, curved
from coprune.data import DataSet
from coprune.methods.base import Ranking, Untouched
from coprune.methods.registry import METHODS, find_method, method_settings
from coprune.pipeline.context import Context
from coprune.pipeline.divergence import statistics_for


@pytest.fixture(scope="module")
def profile():
    model, source = tiny.Flattened().eval(), tiny.source(120)
    data = DataSet("test", source, source, source, 3, source.input_shape, "test")
    context = Context.of(model, data, device="cpu")
    method = find_method("complementary")
    return context.statistics([READS, *method.needs(method_settings(method, {}))])


def test_the_loss_is_the_error_of_the_consumers_solved_again(profile):
    group = profile.groups[0]
    score = torch.arange(group.size, dtype=torch.float64)
    (choice,) = curved([Ranking(group, score, "number")], profile)
    assert torch.equal(choice.kept(3), torch.arange(group.size - 3, group.size))
    assert float(choice.loss[group.size]) == 0
    assert (choice.loss[:-1] >= choice.loss[1:]).all()
    k = group.size // 2
    due = 0.0
    for c in choice.consumers:
        each = c.weight.shape[1] // group.size
        at = (choice.kept(k).unsqueeze(1) * each + torch.arange(each)).flatten()
        part = c.covariance[at][:, at]
        part = part + 1e-12 * part.diagonal().mean() * torch.eye(len(at), dtype=part.dtype)
        best = torch.linalg.solve(part, c.covariance[at] @ c.weight.T).T
        rest = c.weight @ c.covariance @ c.weight.T - best @ c.covariance[at] @ c.weight.T
        due += float((rest.diagonal() * c.sensitivity).sum())
    assert float(choice.loss[k]) == pytest.approx(due, rel=0.05)  # the ridge


def test_an_elimination_keeps_its_own_loss_and_what_is_left_whole_has_none(profile):
    method = find_method("complementary")
    own = method.choose(profile, method_settings(method, {}), 0)
    assert curved(own, profile) == list(own)
    whole = Untouched(profile.groups[0], "for a reason")
    assert curved([whole, own[1]], profile) == [own[1]]
    # The same units, judged from outside: about the elimination's own figure.
    for choice in own:
        loss = CurvedChoice(choice, choice.consumers).loss
        k, whole_loss = choice.group.size // 2, float(choice.loss[0])
        assert float(loss[0]) == pytest.approx(whole_loss, rel=0.01)
        assert float(loss[k]) == pytest.approx(float(choice.loss[k]), rel=0.1, abs=1e-3 * whole_loss)


@pytest.mark.parametrize("name", list(METHODS))
def test_only_what_does_not_know_its_loss_reads_more(name):
    method = find_method(name)
    options = method_settings(method, {})
    assert statistics_for(method, options, "uniform") == method.needs(options)
    more = statistics_for(method, options, "measured")[len(method.needs(options)) :]
    assert more == (() if name == "complementary" else (READS,))
