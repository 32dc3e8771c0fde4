"""One layer's regression: the weights with which it says again what the unpruned one said.

The rows may be shared out over the processes of a run: all that is concluded from them is a sum.

Shapes: ``M`` rows (places of samples) of this process, ``D`` values read at a place, ``O`` output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from coprune.distributed.collectives import joined_rows, summed
from coprune.tracing.patches import centred_gram

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""λ, relative to the mean diagonal of the Gram matrix; the one that is best on held-back rows is taken."""

EXACT = 1e-10
"""Up to this error, in proportion to what is wanted, old weights say all there is to say; float32 is not
surer, and whether others are better would hang on how sums were rounded."""

SWEEPS = 8
"""Of the rectified problem; three leave 3 % more divergence, twenty gain nothing that can be measured."""

_CHUNK = 8192

Total = Callable[[Tensor], Tensor]
"""Sum of a statistic over everybody who has rows."""


def alone(value: Tensor) -> Tensor:
    """The :data:`Total` of whoever has all rows."""
    return value


@dataclass(frozen=True)
class Target:
    """What the layer's output should come to behind the batch norm and the sum that follow.

    With ``y`` the layer's output, the value there is ``scale · y + shift + other``.

    Attributes:
        value: of the unpruned network there, ``[M, O]``.
        scale: ``[O]``; of the batch norm, 1 where there is none; nowhere 0.
        shift: ``[O]``.
        other: the sum's other operand in the pruned network, ``[M, O]``, or None.
        rectified: whether values below 0 are all the same to whoever reads them.
    """

    value: Tensor
    scale: Tensor
    shift: Tensor
    other: Tensor | None = None
    rectified: bool = False

    def output(self, value: Tensor, rows: slice) -> Tensor:
        """The layer's output that leads to ``value``, ``[m, O]`` of the given rows."""
        wanted = value - self.shift
        if self.other is not None:
            wanted -= self.other[rows]
        return wanted / self.scale

    def behind(self, output: Tensor, rows: slice) -> Tensor:
        """Inverse of :meth:`output`."""
        value = output * self.scale + self.shift
        return value if self.other is None else value + self.other[rows]

    def error(self, output: Tensor, rows: slice) -> Tensor:
        """Squared error there, behind the rectifier too, summed over rows and channels."""
        found, wanted = self.behind(output, rows), self.value[rows]
        if self.rectified:
            found, wanted = found.relu(), wanted.relu()
        return (found - wanted).square().sum(dtype=torch.float64)

    def energy(self, rows: slice, total: Total) -> float:
        """Variation of the target, which errors are reported in proportion to."""
        wanted = self.value[rows].relu() if self.rectified else self.value[rows]
        count = total(torch.tensor(len(wanted)))
        mean = total(wanted.sum(0, dtype=torch.float64)) / int(count)
        energy = (wanted - mean.to(wanted.dtype)).square().sum(dtype=torch.float64)
        return max(float(total(energy)), 1e-30)

    def joined(self, join: Callable[[Tensor], Tensor]) -> Target:
        """With the rows of everybody."""
        other = None if self.other is None else join(self.other)
        return replace(self, value=join(self.value), other=other)


@dataclass(frozen=True)
class Solution:
    """New weights, and what they are worth on rows that the solver did not see.

    Attributes:
        weight: ``[O, D]`` float64.
        bias: ``[O]`` float64, what is added to the output.
        before, after: squared error of old and new weights there, over the target's variation there.
        ridge: the λ that was chosen; infinite when nothing could be solved.
    """

    weight: Tensor
    bias: Tensor
    before: float
    after: float
    ridge: float

    @property
    def better(self) -> bool:
        """Whether the new weights are worth having."""
        return self.after < self.before and self.before > EXACT


def solve(
    rows: Tensor,
    target: Target,
    weight: Tensor,
    bias: Tensor,
    *,
    held_back: int,
    intercept: bool,
    shared: bool = False,
) -> Solution:
    """Ridge regression towards the old weights, with λ chosen on held-back rows.

    Minimises ‖T − W x − b‖² + λ ‖W − W_old‖²: normal equations in float64, Cholesky. A λ with which the
    system cannot be factored is passed over. Behind a rectifier, where T < 0, only a positive output
    is an error: such rows are given their own output, cut at 0, as the target, and the regression is
    solved again with the same factor. That majorises the rectified error, so it falls with every
    sweep (the problem is that of Zhang et al. 2015, arXiv 1505.06798, §3.2; they relax it instead).

    Args:
        rows: ``[M, D]``, what the layer reads in the pruned network.
        target: what should come of it.
        weight: ``[O, D]`` float64, the weights that it has.
        bias: ``[O]`` float64, what is added to the output now.
        held_back: how many of the last rows judge and are not solved on.
        intercept: whether anything can be added to the output.
        shared: whether other processes hold more rows of the same problem. All get the same solution.
    """
    fit, judge = slice(0, len(rows) - held_back), slice(len(rows) - held_back, len(rows))
    total: Total = summed if shared else alone
    count = int(total(torch.tensor(fit.stop)))
    if shared and rows.shape[1] > count:
        # Products of rows with each other cannot be summed; but then the rows are the smaller thing.
        def whole(values: Tensor) -> Tensor:
            return torch.cat([joined_rows(values[fit]), joined_rows(values[judge])])

        every = whole(rows)
        return solve(
            every, target.joined(whole), weight, bias, held_back=len(every) - count, intercept=intercept
        )
    energy = target.energy(judge, total)
    start = _Line(weight, bias)
    before = _error(rows, target, start, judge, total) / energy
    best = Solution(weight, bias, before, float("inf"), float("inf"))
    if count < 1:
        return best  # of one sample alone none is left to solve on
    factor = None
    problem = _Problem(rows, target, start, fit, intercept=intercept, count=count, total=total)
    linear = problem.missing(None)
    for ridge in RIDGES:
        tried = problem.factor(ridge)
        if tried is None:
            continue
        line = problem.step(tried, linear)
        error = _error(rows, target, line, judge, total) / energy
        if error < best.after:
            best, factor = Solution(line.weight, line.bias, before, error, ridge), tried
    if factor is None or not target.rectified:
        return best
    line = _Line(best.weight, best.bias)
    for _ in range(SWEEPS):
        line = problem.step(factor, problem.missing(line))
    error = _error(rows, target, line, judge, total) / energy
    return Solution(line.weight, line.bias, before, error, best.ridge) if error < best.after else best


@dataclass(frozen=True)
class _Line:
    weight: Tensor
    bias: Tensor

    def output(self, rows: Tensor) -> Tensor:
        return torch.addmm(self.bias.to(rows.dtype), rows, self.weight.to(rows.dtype).T)


def _chunks(part: slice) -> Iterator[slice]:
    for start in range(part.start, part.stop, _CHUNK):
        yield slice(start, min(start + _CHUNK, part.stop))


def _error(rows: Tensor, target: Target, line: _Line, part: slice, total: Total) -> float:
    mine = sum(float(target.error(line.output(rows[c]), c)) for c in _chunks(part))
    return float(total(torch.tensor(mine, dtype=torch.float64)))


class _Problem:
    """The normal equations of one part of the rows, centred when there is an intercept.

    With more values than rows the dual is smaller: Wᵀ = Xᵀ (X Xᵀ + λI)⁻¹ T. Both have one solution.
    """

    def __init__(
        self,
        rows: Tensor,
        target: Target,
        start: _Line,
        part: slice,
        *,
        intercept: bool,
        count: int,
        total: Total,
    ) -> None:
        self._rows, self._target, self._start, self._part = rows, target, start, part
        self._intercept, self._count, self._total = intercept, count, total
        width = rows.shape[1]
        self._dual = width > count  # then nobody else has rows
        mean = torch.zeros(width, dtype=torch.float64, device=rows.device)
        if intercept:
            for chunk in _chunks(part):
                mean += rows[chunk].sum(0, dtype=torch.float64)
            mean = total(mean) / count
        self._mean = mean
        if self._dual:
            x = rows[part].double() - mean
            self._gram = x @ x.T
        else:
            # In the model's precision and added up in float64, as the right-hand side is.
            self._gram = total(centred_gram(rows[part], mean))
        # The same λ in both forms: the trace is the same.
        self._scale = self._gram.trace() / width

    def factor(self, ridge: float) -> Tensor | None:
        """Cholesky factor of the system, or None when it cannot be factored with this λ."""
        system = self._gram.clone()
        system.diagonal().add_(ridge * self._scale)
        factor, failed = torch.linalg.cholesky_ex(system)
        return None if int(failed) or not float(self._scale) > 0 else factor

    def missing(self, found: _Line | None) -> tuple[Tensor, Tensor]:
        """What the old weights lack: right-hand side (``[D, O]``, dual ``[M, O]``) and mean ``[O]``.

        Args:
            found: the line whose outputs below 0 are right behind a rectifier; None: the plain target.
        """
        lacks = []
        right = torch.zeros(
            self._rows.shape[1], len(self._start.bias), dtype=torch.float64, device=self._rows.device
        )
        lacking = torch.zeros_like(self._start.bias)
        for chunk, start, plain in self._started if self._target.rectified else self._starts():
            rows = self._rows[chunk]
            lack = plain if found is None else self._rectified(found, chunk, start, plain)
            lacking += lack.sum(0, dtype=torch.float64)
            if self._dual:
                lacks.append(lack.double())
            else:
                right += rows.T @ lack
        right, lacking = (torch.cat(lacks) if self._dual else self._total(right)), self._total(lacking)
        mean = lacking / self._count if self._intercept else torch.zeros_like(lacking)
        return (right - mean if self._dual else right - self._mean.outer(lacking)), mean

    @cached_property
    def _started(self) -> list[tuple[slice, Tensor, Tensor]]:
        """The same in every sweep of a rectified problem, and so worth its memory there."""
        return list(self._starts())

    def _starts(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, what the old weights lead to there, and what their output lacks."""
        for chunk in _chunks(self._part):
            now = self._start.output(self._rows[chunk])
            lack = self._target.output(self._target.value[chunk], chunk) - now
            yield chunk, self._target.behind(now, chunk), lack

    def _rectified(self, found: _Line, chunk: slice, start: Tensor, plain: Tensor) -> Tensor:
        """What is lacking when rows with a target below 0 are given their own value, cut at 0.

        With d what the line has more than the old weights, that value is ``start + scale · d`` less its
        positive part, so that d less that part over the scale is lacking.
        """
        scale = self._target.scale
        more = _Line(found.weight - self._start.weight, found.bias - self._start.bias)
        d = more.output(self._rows[chunk])
        above = torch.addcmul(start, d, scale).relu_()
        return torch.where(self._target.value[chunk] > 0, plain, d.sub_(above.div_(scale)))

    def step(self, factor: Tensor, missing: tuple[Tensor, Tensor]) -> _Line:
        """The old weights and what they lacked."""
        right, mean = missing
        step = torch.cholesky_solve(right, factor)
        if self._dual:
            step = (self._rows[self._part].double() - self._mean).T @ step
        weight = self._start.weight + step.T
        return _Line(weight, self._start.bias + mean - step.T @ self._mean)
