"""Distances of outputs, and losses that are drawn from them: one model of what outputs mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import hessian

from coprune.tasks import outputs as counted
from coprune.tasks.divergence import Divergence
from coprune.tasks.outputs import Outputs

KINDS = ("softmax", "sigmoid", "gaussian", "cosine")


def drawn(shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def curvature(divergence, values, mask=None):
    """Second derivative of the distance to itself, at 0, by every number: the diagonal."""
    wanted = Outputs((values,), mask)

    def apart(moved):
        return divergence.distance(Outputs((moved.view_as(values),), mask), wanted).sum()

    return hessian(apart, values.double().flatten()).diagonal().view_as(values)


def fisher(divergence, values, mask=None, draws=4000):
    """Mean squared gradient of the drawn loss: samples side by side are so many draws."""
    many = values.repeat(draws, *[1] * (values.ndim - 1)).requires_grad_()
    outputs = Outputs((many,), None if mask is None else mask.repeat(draws, 1))
    divergence.drawn_loss(outputs, torch.Generator().manual_seed(1)).backward()
    return many.grad.double().square().unflatten(0, (draws, -1)).mean(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2, 1)], ids=["rows", "maps"])
def test_what_is_drawn_costs_what_the_distance_says(kind, shape):
    divergence, values = Divergence(kind), drawn(shape)
    due, found = curvature(divergence, values), fisher(divergence, values)
    # A mean of squares: three standard errors of 4,000 draws of a squared normal number are 7 %.
    torch.testing.assert_close(found, due, rtol=0.2, atol=0.01 * float(due.max()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_of_tokens_costs_what_the_distance_says(kind):
    divergence, values = Divergence(kind, -1), drawn((2, 3, 2))
    mask = torch.tensor([[True, True, False], [True, True, True]])
    due, found = curvature(divergence, values, mask), fisher(divergence, values, mask)
    assert float(due[0, 2].abs().max()) == float(found[0, 2].abs().max()) == 0
    torch.testing.assert_close(found, due, rtol=0.2, atol=0.01 * float(due.max()))


def test_one_logit_is_yes_or_no():
    one = drawn((3, 1, 4, 4), scale=2)
    two = torch.cat([torch.zeros_like(one), one], 1)
    other = one + drawn(one.shape, 1)
    pair = torch.cat([torch.zeros_like(one), other], 1)
    softmax = Divergence("softmax")
    apart = softmax.distance(Outputs((other,)), Outputs((one,)))
    torch.testing.assert_close(apart, softmax.distance(Outputs((pair,)), Outputs((two,))))
    assert float(apart.min()) > 0


def test_distances_by_hand():
    wanted, found = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    p = torch.tensor([0.5, 0.5])
    due = (p * (p.log() - found[0].log_softmax(0))).sum()
    assert float(Divergence("softmax").distance(Outputs((found,)), Outputs((wanted,)))) == pytest.approx(
        float(due)
    )
    rows, moved = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.5], [2.0]])  # spread 1
    assert Divergence("gaussian").distance(Outputs((moved,)), Outputs((rows,))).tolist() == [0.125, 0]
    cosine = Divergence("cosine").distance(
        Outputs((torch.tensor([[1.0, 1.0]]),)), Outputs((torch.tensor([[3.0, 0.0]]),))
    )
    assert float(cosine) == pytest.approx(1 - 0.5**0.5)


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(KINDS), axis=st.sampled_from([1, -1]), seed=st.integers(0, 10**6))
def test_equal_outputs_are_not_apart_and_none_are_less(kind, axis, seed):
    shape = [(3, 4), (3, 4, 5), (3, 1)][seed % 3]
    wanted, found = drawn(shape, seed), drawn(shape, seed + 1)
    divergence = Divergence(kind, axis)
    ours, theirs = Outputs((found, wanted)), Outputs((wanted, found))
    same = divergence.distance(theirs, theirs)
    assert same.dtype == torch.float64
    torch.testing.assert_close(same, torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert float(divergence.distance(ours, theirs).min()) >= -1e-9
    assert float(divergence.taught(ours, theirs, temperature=2.0)) >= -1e-6


def test_a_known_spread_makes_figures_independent_of_batches():
    wanted, found = drawn((7, 2), scale=5), drawn((7, 2), 1)
    batches = [Outputs((part,)) for part in wanted.split(3)]
    divergence = Divergence("gaussian").known(batches)
    torch.testing.assert_close(divergence.spreads[0], wanted.double().std(0, correction=0))
    whole = divergence.distance(Outputs((found,)), Outputs((wanted,)))
    alone = [
        divergence.distance(Outputs((f[None],)), Outputs((w[None],)))
        for f, w in zip(found, wanted, strict=True)
    ]
    torch.testing.assert_close(torch.cat(alone), whole)
    own = Divergence("gaussian").distance(Outputs((found,)), Outputs((wanted,)))
    torch.testing.assert_close(whole, own)


def test_a_channel_that_hardly_varies_is_not_blown_up():
    wanted = torch.stack([drawn(50), 1 + 1e-9 * drawn(50)], 1)
    found = wanted + 0.01
    apart = Divergence("gaussian").distance(Outputs((found,)), Outputs((wanted,)))
    assert float(apart.max()) < 0.1


def test_a_student_learns_the_mean_distance():
    for kind, axis, shape in (("softmax", 1, (4, 3)), ("sigmoid", 1, (4, 3)), ("cosine", -1, (4, 3, 2))):
        wanted, found = (Outputs((drawn(shape, seed),)) for seed in (0, 1))
        divergence = Divergence(kind, axis)
        due = divergence.distance(found, wanted).mean()
        torch.testing.assert_close(divergence.taught(found, wanted).double(), due, rtol=1e-5, atol=1e-7)


def test_places_that_are_drawn_leave_the_mean_within_error(monkeypatch):
    wanted, found = drawn((4, 6, 40, 40)), drawn((4, 6, 40, 40), 1)
    divergence = Divergence("softmax")
    whole = divergence.distance(Outputs((found,)), Outputs((wanted,)))
    monkeypatch.setattr(counted, "MOST", 6 * 400)
    kept = divergence.cells(Outputs((wanted,)))
    assert kept[0].values.shape == (4, 400, 6)
    some = divergence.distance(Outputs((found,)), kept)
    # Of 1,600 places 400 are drawn; one differs by about 1 from another: 0.05 is one standard error.
    assert float((some - whole).abs().max()) < 0.2
    assert torch.equal(some, divergence.distance(Outputs((found,)), kept))
    every = divergence.distance(Outputs((found,)), Outputs((wanted,)), whole=True)
    torch.testing.assert_close(every, whole)


def test_parts_that_fit_the_cache_say_the_same(monkeypatch):
    mask = torch.arange(4) < torch.tensor([4, 3, 2, 4, 1])[:, None]
    wanted, found = (Outputs((drawn((5, 4, 3), seed),), mask) for seed in (0, 1))
    for kind in ("softmax", "sigmoid", "cosine", "gaussian"):
        divergence = Divergence(kind, -1)
        whole = divergence.distance(found, wanted)
        with monkeypatch.context() as patch:
            patch.setattr("coprune.tasks.divergence.MOST", 2 * 4 * 3)
            cells = (outputs.cells(-1)[0] for outputs in (found, wanted))
            parts = [len(a.values) for a, _ in divergence._in_parts(*cells)]
            assert parts == ([5] if kind == "gaussian" else [2, 2, 1])
            assert torch.equal(divergence.distance(found, wanted), whole)


def test_a_student_learns_from_all_places_however_many(monkeypatch):
    # Once a bug: of tokens × vocabulary a sixth of the tokens, always the same ones, taught.
    monkeypatch.setattr(counted, "MOST", 2 * 16)
    wanted, found = Outputs((drawn((3, 100, 2)),)), Outputs((drawn((3, 100, 2), 1).requires_grad_(),))
    Divergence("softmax", -1).taught(found, wanted).backward()
    assert bool((found.tensors[0].grad != 0).all())


def test_of_masked_places_only_real_ones_are_drawn(monkeypatch):
    monkeypatch.setattr(counted, "MOST", 2 * 16)
    mask = torch.zeros(1, 100, dtype=torch.bool)
    mask[0, 70:80] = True
    (cells,) = Outputs((drawn((1, 100, 2)),), mask).cells(-1)
    assert cells.values.shape == (1, 16, 2)
    assert float(cells.weight.sum()) == float(cells.count) == 10
