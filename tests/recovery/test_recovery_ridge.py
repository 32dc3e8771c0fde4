"""The layer's regression equals a twin by NumPy's least squares, and never makes held-back rows worse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.recovery import ridge as regression
from coprune.recovery.ridge import RIDGES, Line, Target, solve


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(seed, *, m=60, d=7, o=4, other=False, rectified=False, noise=0.3):
    """Rows, a target that is not quite linear in them, and some old weights. All float64."""
    rows = draw(seed, m, d) @ draw(seed + 1, d, d) + draw(seed + 2, d)
    value = rows @ draw(seed + 3, d, o) + draw(seed + 4, o) + noise * draw(seed + 5, m, o)
    scale = draw(seed + 6, o).abs() + 0.5
    scale[0] *= -1  # of a batch norm with a negative weight
    target = Target(value, scale, draw(seed + 7, o), draw(seed + 8, m, o) if other else None, rectified)
    return rows, target, draw(seed + 9, o, d), draw(seed + 10, o)


def wanted_output(target, part):
    """The layer's output that leads to the target, in NumPy."""
    value = target.value[part].numpy() - target.shift.numpy()
    if target.other is not None:
        value = value - target.other[part].numpy()
    return value / target.scale.numpy()


def ridge_twin(x, t, old, bias, ridge, *, intercept):
    """Towards the old weights: rows √λ·(W − W_old) = 0 are added, the intercept is a column of ones."""
    m, d = x.shape
    centred = x - x.mean(0) if intercept else x
    strength = ridge * (centred**2).sum() / d
    left = np.concatenate([x, np.sqrt(strength) * np.eye(d)])
    right = np.concatenate([t - bias, np.sqrt(strength) * old.T])
    if intercept:
        left = np.concatenate([left, np.concatenate([np.ones(m), np.zeros(d)])[:, None]], 1)
    found = np.linalg.lstsq(left, right, rcond=None)[0]
    return found[:d].T, bias + (found[d] if intercept else 0)


def held_back_error(rows, target, weight, bias, part):
    """Over the target's variation, by hand."""
    found = (rows[part].numpy() @ weight.T + bias) * target.scale.numpy() + target.shift.numpy()
    if target.other is not None:
        found = found + target.other[part].numpy()
    wanted = target.value[part].numpy()
    if target.rectified:
        found, wanted = found.clip(0), wanted.clip(0)
    return ((found - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(("m", "d"), [(60, 7), (30, 45)])  # the second is solved in the dual
@pytest.mark.parametrize("seed", [0, 100])
def test_the_solution_is_the_ridge_that_is_best_on_held_back_rows(seed, m, d, intercept, other):
    rows, target, weight, bias = problem(seed, m=m, d=d, other=other)
    fit, judge = slice(0, m - 12), slice(m - 12, m)
    found = solve(rows, target, Line(weight, bias), held_back=12, intercept=intercept)
    twins = [
        ridge_twin(
            rows[fit].numpy(),
            wanted_output(target, fit),
            weight.numpy(),
            bias.numpy(),
            r,
            intercept=intercept,
        )
        for r in RIDGES
    ]
    errors = [held_back_error(rows, target, *twin, judge) for twin in twins]
    best = int(np.argmin(errors))
    assert found.ridge == RIDGES[best]
    every = slice(0, m)
    again = ridge_twin(
        rows.numpy(),
        wanted_output(target, every),
        weight.numpy(),
        bias.numpy(),
        found.ridge,
        intercept=intercept,
    )
    wanted = again if errors[best] < found.before else (weight, bias)
    np.testing.assert_allclose(found.weight, wanted[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.bias, wanted[1], rtol=1e-6, atol=1e-8)
    assert found.after == pytest.approx(errors[best], rel=1e-6)
    assert found.before == pytest.approx(
        held_back_error(rows, target, weight.numpy(), bias.numpy(), judge), rel=1e-9
    )
    if not intercept:
        assert torch.equal(found.bias, bias)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_primal_and_dual_have_one_solution(monkeypatch, intercept, rectified):
    rows, target, weight, bias = problem(3, m=40, d=20, other=True, rectified=rectified)
    primal = solve(rows, target, Line(weight, bias), held_back=8, intercept=intercept)
    made = regression._Equations.__init__

    def dual(self, rows, start, **how):
        made(self, rows, start, **how)
        x = rows - self._mean
        self._dual, self.gram = True, x @ x.T

    monkeypatch.setattr(regression._Equations, "__init__", dual)
    other = solve(rows, target, Line(weight, bias), held_back=8, intercept=intercept)
    assert primal.ridge == other.ridge
    torch.testing.assert_close(primal.weight, other.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(primal.bias, other.bias, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("m", [50, 12])
@pytest.mark.parametrize("rectified", [False, True])
def test_rows_are_worked_on_in_chunks_without_a_trace(monkeypatch, m, rectified):
    rows, target, weight, bias = problem(7, m=m, d=9, other=True, rectified=rectified)
    whole = solve(rows, target, Line(weight, bias), held_back=5, intercept=True)
    monkeypatch.setattr(regression, "_CHUNK", 4)
    parts = solve(rows, target, Line(weight, bias), held_back=5, intercept=True)
    assert parts.ridge == whole.ridge
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-7, atol=1e-9)
    assert parts.before == pytest.approx(whole.before)


@given(
    seed=st.integers(0, 9999),
    other=st.booleans(),
    intercept=st.booleans(),
    shape=st.sampled_from([(50, 6), (24, 30)]),
)
def test_a_rectified_solution_is_never_worse_than_the_linear_one(seed, other, intercept, shape):
    m, d = shape
    rows, target, weight, bias = problem(seed, m=m, d=d, other=other, rectified=True)
    found = solve(rows, target, Line(weight, bias), held_back=8, intercept=intercept)
    fit, judge, every = slice(0, m - 8), slice(m - 8, m), slice(0, m)

    def linear(part, ridge):
        x, t = rows[part].numpy(), wanted_output(target, part)
        return ridge_twin(x, t, weight.numpy(), bias.numpy(), ridge, intercept=intercept)

    for ridge in RIDGES:
        assert found.after <= held_back_error(rows, target, *linear(fit, ridge), judge) * (1 + 1e-6)
    if not found.better:
        return

    def minimised(w, b):
        """By the last solution, on all rows."""
        wanted, centred = target.value.clamp(min=0), rows - rows.mean(0) if intercept else rows
        energy = float((wanted - wanted.mean(0)).square().sum())
        pull = found.ridge * float(centred.square().sum()) / d
        far = float(((torch.as_tensor(w) - weight).square().sum(1) * target.scale.square()).sum())
        return held_back_error(rows, target, np.asarray(w), np.asarray(b), every) * energy + pull * far

    assert minimised(found.weight, found.bias) <= minimised(*linear(every, found.ridge)) * (1 + 1e-6)


def test_what_is_below_zero_costs_nothing_behind_a_rectifier():
    # relu(x w) with one value that the linear fit must bend for: exactly what ReLU forgives.
    shuffled = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-1, 1, 80, dtype=torch.float64)[shuffled].unsqueeze(1)
    value = torch.where(x > 0, 2 * x, -9.0 - x)
    one = torch.ones(1, dtype=torch.float64)
    plain = Target(value, one, 0 * one)
    rectified = Target(value, one, 0 * one, rectified=True)
    start = Line(torch.full((1, 1), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    assert solve(x, plain, start, held_back=20, intercept=True).after > 0.05
    found = solve(x, rectified, start, held_back=20, intercept=True)
    assert found.better
    linear = ridge_twin(
        x[:60].numpy(), value[:60].numpy(), np.full((1, 1), 0.5), np.zeros(1), 1e-5, intercept=True
    )
    assert found.after < 0.5 * held_back_error(x, rectified, *linear, slice(60, 80))


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(("m", "d"), [(60, 7), (20, 30)])
def test_rows_of_low_rank_are_no_error(m, d, intercept):
    rows, target, weight, bias = problem(11, m=m, d=d)
    rows = rows[:, :2] @ draw(0, 2, d)
    found = solve(rows.float().double(), target, Line(weight, bias), held_back=10, intercept=intercept)
    assert torch.isfinite(found.weight).all()
    assert torch.isfinite(found.bias).all()
    assert found.better
    assert found.ridge in RIDGES


@pytest.mark.parametrize("intercept", [False, True])
def test_constant_columns(intercept):
    rows, target, weight, bias = problem(12)
    rows[:, 2], rows[:, 5] = 0.0, 3.0
    found = solve(rows, target, Line(weight, bias), held_back=12, intercept=intercept)
    assert found.better
    # Nothing is known of a value that never varies: its weight stays.
    torch.testing.assert_close(found.weight[:, 2], weight[:, 2])
    if intercept:
        torch.testing.assert_close(found.weight[:, 5], weight[:, 5])


@pytest.mark.parametrize("constant", [0.0, 2.0])
def test_rows_that_never_vary_leave_the_old_weights(constant):
    rows, target, weight, bias = problem(13)
    rows[:] = constant
    found = solve(rows, target, Line(weight, bias), held_back=12, intercept=True)
    assert torch.isfinite(found.weight).all()
    torch.testing.assert_close(found.weight, weight)


def test_weights_that_are_right_already_stay():
    rows, target, weight, bias = problem(14)
    right = (rows @ weight.T + bias) * target.scale + target.shift
    found = solve(
        rows, Target(right, target.scale, target.shift), Line(weight, bias), held_back=12, intercept=True
    )
    assert found.before < 1e-20
    torch.testing.assert_close(found.weight, weight, rtol=1e-7, atol=1e-9)


def test_old_weights_that_are_better_on_held_back_rows_are_kept_by_name():
    # The rows that are solved on want the opposite of those that judge.
    rows, target, weight, bias = problem(15, noise=0)
    right = (rows @ weight.T + bias) * target.scale + target.shift
    right[:48] *= -1
    found = solve(
        rows, Target(right, target.scale, target.shift), Line(weight, bias), held_back=12, intercept=True
    )
    assert not found.better
    assert found.after >= found.before


def test_rows_that_are_all_held_back_change_nothing():
    # Once a bug: a single calibration sample has none left to solve on, and torch.cat complained.
    rows, target, weight, bias = problem(16, m=3)
    found = solve(rows, target, Line(weight, bias), held_back=3, intercept=True)
    assert not found.better
    assert torch.equal(found.weight, weight)


def test_no_channels_at_all_are_no_error():
    rows, *_ = problem(17)
    none = torch.zeros(60, 0, dtype=torch.float64)
    empty = torch.zeros(0, dtype=torch.float64)
    found = solve(
        rows, Target(none, empty, empty, rectified=True), Line(torch.zeros(0, 7).double(), empty),
        held_back=12, intercept=True,
    )  # fmt: skip
    assert not found.better


def test_float32_rows_give_what_float64_rows_give():
    rows, target, weight, bias = problem(18, m=400, other=True, rectified=True)
    exact = solve(rows, target, Line(weight, bias), held_back=50, intercept=True)
    halves = Target(*(t.float() for t in (target.value, target.scale, target.shift, target.other)), True)
    found = solve(rows.float(), halves, Line(weight, bias), held_back=50, intercept=True)
    assert found.weight.dtype == torch.float64
    torch.testing.assert_close(found.weight, exact.weight, rtol=1e-3, atol=1e-3)
    assert found.after == pytest.approx(exact.after, rel=1e-3)


def test_nothing_given_is_changed():
    rows, target, weight, bias = problem(19, other=True, rectified=True)
    given_ = [rows, target.value, target.scale, target.shift, target.other, weight, bias]
    before = [t.clone() for t in given_]
    solve(rows, target, Line(weight, bias), held_back=12, intercept=True)
    assert all(torch.equal(a, b) for a, b in zip(given_, before, strict=True))


@pytest.mark.parametrize("rectified", [False, True])
def test_weights_that_say_all_there_is_to_say_stay(rectified):
    # Once a bug: in front of all that was cut, new weights were taken or not as float32 had rounded, so two
    # processes ended with other weights than one.
    for seed in range(20):
        rows, target, weight, bias = problem(seed, m=400, rectified=rectified)
        rows, line = rows.float(), Line(weight, bias)
        exact = Target(torch.zeros(400, 4), target.scale.float(), target.shift.float(), rectified=rectified)
        exact = replace(exact, value=exact.behind(line.output(rows), slice(None)))
        # As another order of sums would have it.
        noisy = replace(exact, value=exact.value * (1 + 1e-7 * draw(seed + 20, 400, 4)).float())
        for one in (exact, noisy):
            found = solve(rows, one, Line(weight, bias), held_back=50, intercept=True)
            assert found.before < regression.EXACT
            assert not found.better
