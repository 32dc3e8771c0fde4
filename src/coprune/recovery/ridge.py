"""Ridge regression: the one rule and solver of the project.

A layer is solved again towards what the unpruned one put out, with the λ that is best on held-back rows
(:func:`solve`); where only a covariance is known, λ grows until the system can be factored
(:func:`growing_factor`). The rows may be shared out over the processes of a run: all that is concluded from
them is a sum.

Shapes: ``M`` rows (places of samples) of this process, ``D`` values read at a place, ``O`` output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from coprune.distributed.collectives import joined_rows, summed
from coprune.errors import UserError
from coprune.tracing.patches import centred_gram

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""λ, relative to the mean diagonal of the Gram matrix; the one that is best on held-back rows is taken."""

RIDGE = 1e-3
"""λ, relative to the mean diagonal, where there are no rows to choose it by."""

_TRIES = 8  # tenfold ridges

EXACT = 1e-10
"""Up to this error, in proportion to what is wanted, the old weights cannot be improved; float32 is not
surer, and whether others are better would hang on how sums were rounded."""

SWEEPS = 8
"""Of the rectified problem; three leave 3 % more divergence, twenty gain nothing that can be measured."""

_CHUNK = 8192

Total = Callable[[Tensor], Tensor]
"""Sum of a statistic over everybody who has rows."""


def ridge_factor(system: Tensor, strength: float | Tensor) -> Tensor | None:
    """Cholesky factor of ``S + λI``, ``[D, D]``; None when it cannot be factored.

    Args:
        system: ``S``, positive semi-definite but for rounding, ``[D, D]`` float64.
        strength: λ.
    """
    ridged = system.clone()
    ridged.diagonal().add_(strength)
    factor, failed = torch.linalg.cholesky_ex(ridged)
    return factor if not failed and bool(torch.isfinite(factor).all()) else None


def growing_factor(system: Tensor, *, ridge: float = RIDGE, scale: Tensor | None = None) -> Tensor:
    """Cholesky factor of ``S + λI``, ``[D, D]``; λ grows tenfold until rounding leaves it positive definite.

    Args:
        system: ``S``, a covariance, ``[D, D]`` float64.
        ridge: λ, relative to ``scale``.
        scale: None: the mean diagonal of ``S``.

    Raises:
        UserError: a covariance with NaN or Inf.
    """
    scale = (system.diagonal().mean() if scale is None else scale).clamp_min(1e-30)
    for power in range(_TRIES):
        factor = ridge_factor(system, ridge * 10**power * scale)
        if factor is not None:
            return factor
    raise UserError(
        "values inside the model are too large to be squared or of too different sizes; "
        "check its weights and the normalisation of the data"
    )


@dataclass(frozen=True)
class Line:
    """``y = W x + b``.

    Attributes:
        weight: ``[O, D]`` float64.
        bias: ``[O]`` float64, what is added to the output.
    """

    weight: Tensor
    bias: Tensor

    def output(self, rows: Tensor) -> Tensor:
        """``[M, O]`` of rows ``[M, D]``, in their precision."""
        return torch.addmm(self.bias.to(rows.dtype), rows, self.weight.to(rows.dtype).T)


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

    def output(self, rows: slice) -> Tensor:
        """The layer's output that leads to the value, ``[m, O]`` of the given rows."""
        wanted = self.value[rows] - self.shift
        return (wanted if self.other is None else wanted - self.other[rows]) / self.scale

    def behind(self, output: Tensor, rows: slice) -> Tensor:
        """Inverse of :meth:`output`: the value that an output ``[m, O]`` leads to."""
        value = output * self.scale + self.shift
        return value if self.other is None else value + self.other[rows]

    def error(self, output: Tensor, rows: slice) -> Tensor:
        """Squared error there, behind the rectifier too, summed over rows and channels."""
        found = self.behind(output, rows)
        return (self._read(found) - self._read(self.value[rows])).square().sum(dtype=torch.float64)

    def energy(self, rows: slice, total: Total) -> float:
        """Variation of the target, which errors are reported in proportion to."""
        wanted = self._read(self.value[rows])
        mean = total(wanted.sum(0, dtype=torch.float64)) / int(total(torch.tensor(len(wanted))))
        energy = (wanted - mean.to(wanted.dtype)).square().sum(dtype=torch.float64)
        return max(float(total(energy)), 1e-30)

    def _read(self, value: Tensor) -> Tensor:
        return value.relu() if self.rectified else value


@dataclass(frozen=True)
class Solution(Line):
    """New weights, and what they are worth on rows that the solver did not see.

    Attributes:
        before, after: squared error of old and new weights there, over the target's variation there.
        ridge: the λ that was chosen; infinite when nothing could be solved.
    """

    before: float
    after: float
    ridge: float

    @property
    def better(self) -> bool:
        """Whether the new weights are worth having."""
        return self.after < self.before and self.before > EXACT


def solve(
    rows: Tensor, target: Target, start: Line, *, held_back: int, intercept: bool, shared: bool = False
) -> Solution:
    """Ridge regression towards the old weights, with λ chosen on held-back rows.

    Minimises ‖T − W x − b‖² + λ ‖W − W_old‖²: normal equations in float64, Cholesky. A λ with which the
    system cannot be factored is passed over. With the λ that was best, where that is better than the old
    weights, it is solved again on all rows. Behind a rectifier, where T < 0, only a positive output
    is an error: such rows are given their own output, cut at 0, as the target, and the regression is
    solved again with the same factor. That majorises the rectified error, so it falls with every
    sweep (the problem is that of Zhang et al. 2015, arXiv 1505.06798, §3.2; they relax it instead).

    Args:
        rows: ``[M, D]``, what the layer reads in the pruned network.
        target: what should come of it.
        start: the weights that it has.
        held_back: how many of the last rows judge and are solved on only once λ is chosen.
        intercept: whether anything can be added to the output.
        shared: whether other processes hold more rows of the same problem. All get the same solution.
    """
    fit, judge = slice(0, len(rows) - held_back), slice(len(rows) - held_back, len(rows))
    total: Total = summed if shared else lambda mine: mine
    count = int(total(torch.tensor(fit.stop)))
    if shared and rows.shape[1] > count:
        # Products of rows with each other cannot be summed; but then the rows are the smaller thing.
        rows, target = _everybodys(rows, target, fit.stop)
        return solve(rows, target, start, held_back=len(rows) - count, intercept=intercept)
    energy = target.energy(judge, total)

    def error(line: Line) -> float:
        mine = [target.error(line.output(rows[c]), c) for c in _chunks(judge)]
        return float(total(sum(mine, torch.zeros((), dtype=torch.float64, device=rows.device)))) / energy

    before = error(start)
    best = Solution(start.weight, start.bias, before, float("inf"), float("inf"))
    if count < 1:
        return best  # of one sample alone none is left to solve on
    learned = _Equations(rows[fit], start, target=target, intercept=intercept, total=total)
    rectified = False
    for ridge in RIDGES:
        tried = ridge_factor(learned.gram, ridge * learned.scale)
        if tried is None or not float(learned.scale) > 0:
            continue
        line = learned.solved(tried, rectified=False)
        after = error(line)
        if after < best.after:
            best, factor = Solution(line.weight, line.bias, before, after, ridge), tried
    if best.ridge < float("inf") and target.rectified:
        line = learned.solved(factor, rectified=True)
        after = error(line)
        if rectified := after < best.after:
            best = replace(best, weight=line.weight, bias=line.bias, after=after)
    if not best.better:
        return best
    # What judged teaches too, once nothing is left to decide.
    every = _Equations(rows, start, target=target, intercept=intercept, total=total, known=learned)
    last = ridge_factor(every.gram, best.ridge * every.scale)
    if last is None:
        return best
    line = every.solved(last, rectified=rectified)
    return replace(best, weight=line.weight, bias=line.bias)


def _everybodys(rows: Tensor, target: Target, solving: int) -> tuple[Tensor, Target]:
    """The rows of all processes: those that are solved on, the first of each, and then those that judge."""

    def whole(values: Tensor) -> Tensor:
        return torch.cat([joined_rows(values[:solving]), joined_rows(values[solving:])])

    other = None if target.other is None else whole(target.other)
    return whole(rows), replace(target, value=whole(target.value), other=other)


def _chunks(part: slice) -> list[slice]:
    return [slice(a, min(a + _CHUNK, part.stop)) for a in range(part.start, part.stop, _CHUNK)]


class _Equations:
    """The normal equations of the first rows of a target, centred when there is an intercept.

    With more values than rows the dual is smaller: Wᵀ = Xᵀ (X Xᵀ + λI)⁻¹ T. Both have one solution.

    Args:
        rows: that are solved on, ``[M, D]``.
        start, target, intercept: see :func:`solve`.
        total: sums over everybody's rows.
        known: equations of the first of these rows.

    Attributes:
        gram: ``[D, D]`` float64, dual ``[M, M]``.
        scale: its mean diagonal as a Gram matrix of values; the same λ in both forms.
    """

    def __init__(
        self,
        rows: Tensor,
        start: Line,
        *,
        target: Target,
        intercept: bool,
        total: Total,
        known: _Equations | None = None,
    ) -> None:
        self._rows, self._start, self._target = rows, start, target
        self._intercept, self._total = intercept, total
        self._chunks = _chunks(slice(0, len(rows)))
        width, self._count = rows.shape[1], int(total(torch.tensor(len(rows))))
        self._dual = width > self._count  # then nobody else has rows
        self._mean = torch.zeros(width, dtype=torch.float64, device=rows.device)
        if intercept:
            for chunk in self._chunks:
                self._mean += rows[chunk].sum(0, dtype=torch.float64)
            self._mean = total(self._mean) / self._count
        if self._dual:
            centred = rows.double() - self._mean
            self.gram = centred @ centred.T
        elif known is not None and not known._dual:
            apart = known._mean - self._mean
            more = total(centred_gram(rows[len(known._rows) :], self._mean))
            self.gram = known.gram + more + known._count * apart.outer(apart)
        else:
            # In the model's precision and added up in float64, as the right-hand side is.
            self.gram = total(centred_gram(rows, self._mean))
        self.scale = self.gram.trace() / width
        # What the old weights put out, and what they lack by the plain target.
        self._now = [start.output(rows[c]) for c in self._chunks]
        self._residuals = [target.output(c) - y for c, y in zip(self._chunks, self._now, strict=True)]

    @cached_property
    def _plain(self) -> tuple[Tensor, Tensor]:
        return self._right(self._residuals)

    def solved(self, factor: Tensor, *, rectified: bool) -> Line:
        """The regression's solution with a factored system; of what the rectifier leaves, swept over it."""
        found = self._line(factor, self._plain)
        if rectified:
            values = [self._target.behind(y, c) for c, y in zip(self._chunks, self._now, strict=True)]
            for _ in range(SWEEPS):
                more = Line(found.weight - self._start.weight, found.bias - self._start.bias)
                found = self._line(factor, self._right(self._rectified(values, more)))
        return found

    def _rectified(self, values: Sequence[Tensor], more: Line) -> Iterator[Tensor]:
        """The old weights' residuals when rows with a target below 0 are given their own value, cut at 0.

        That value is ``value + scale · beyond`` less its positive part, so that ``beyond`` less that part
        over the scale is the residual.

        Args:
            values: what the old weights lead to, chunk by chunk, ``[m, O]``.
            more: what the new ones have beyond them.
        """
        target = self._target
        for chunk, value, residual in zip(self._chunks, values, self._residuals, strict=True):
            beyond = more.output(self._rows[chunk])
            above = torch.addcmul(value, beyond, target.scale).relu_()
            own = beyond.sub_(above.div_(target.scale))
            yield torch.where(target.value[chunk] > 0, residual, own)

    def _right(self, residuals: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Right-hand side (``[D, O]``, dual ``[M, O]``) and mean ``[O]`` of residuals, chunk by chunk."""
        parts: list[Tensor] = []
        sums = torch.zeros_like(self._start.bias)
        products = sums.new_zeros(self._rows.shape[1], len(sums))
        for chunk, residual in zip(self._chunks, residuals, strict=True):
            sums += residual.sum(0, dtype=torch.float64)
            if self._dual:
                parts.append(residual.double())
            else:
                products += self._rows[chunk].T @ residual
        sums = self._total(sums)
        mean = sums / self._count if self._intercept else torch.zeros_like(sums)
        right = torch.cat(parts) - mean if self._dual else self._total(products) - self._mean.outer(sums)
        return right, mean

    def _line(self, factor: Tensor, right: tuple[Tensor, Tensor]) -> Line:
        """The old weights and what they lacked."""
        step = torch.cholesky_solve(right[0], factor)
        if self._dual:
            step = (self._rows.double() - self._mean).T @ step
        return Line(self._start.weight + step.T, self._start.bias + right[1] - step.T @ self._mean)
