"""Backward elimination: in which order units can go when the consumers are solved again on the others.

Shapes: ``U`` units of a group, ``b`` values of a unit that a consumer reads at a place, ``D = U·b``,
``O`` outputs of a consumer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coprune.groups import columns_of
from coprune.recovery.ridge import RIDGE, growing_factor

EXACT = 256
"""Up to this many units each is compared with all others before it goes."""

SHARE = 128
"""Of more units, one in this many of those left goes in a step, chosen among the cheapest."""

SPARE = 0.8
"""Share of the columns that must be left; with fewer the system is made smaller."""

_NARROW = 64  # columns of units; copying a smaller system costs more than its steps


@dataclass(frozen=True)
class Reader:
    """What a consumer reads of the group, and what it makes of it.

    Attributes:
        covariance: of what it reads at a place, ``[D, D]`` float64, unit-major.
        weight: ``[O, D]`` float64, rows scaled by the root of what a squared error of that output
            costs.
    """

    covariance: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Elimination:
    """The order in which units go, and what it costs.

    Attributes:
        order: ``[U]``, the first to go first.
        loss: ``[U + 1]``: squared error of the consumers when the first j have gone and the rest has
            been solved again; never falls.
    """

    order: Tensor
    loss: Tensor


def eliminate(readers: Sequence[Reader], units: int, *, ridge: float = RIDGE) -> Elimination:
    """Remove units, always those that the others replace best.

    With P the inverse covariance on the remaining units and W the weights that solve the regression
    on them, removing unit u (columns u) and solving again costs

        tr( W_u (P_uu)⁻¹ W_uᵀ ),    W ← W − W_u (P_uu)⁻¹ P_u,    P ← P − P_·u (P_uu)⁻¹ P_u·

    (Optimal Brain Surgeon in blocks; ZipLM, arXiv 2302.04089, §3.1). Every k comes out of one pass.
    The losses of several readers are added.

    Args:
        readers: of the group.
        units: ``U``.
        ridge: λ, relative to the mean diagonal.

    Raises:
        UserError: a covariance with NaN or Inf.
    """
    factors = (growing_factor(reader.covariance, ridge=ridge) for reader in readers)
    state = [
        (torch.cholesky_inverse(factor), reader.weight.clone(), reader.weight.shape[1] // units)
        for factor, reader in zip(factors, readers, strict=True)
    ]
    alive, ids = torch.ones(units, dtype=torch.bool), torch.arange(units)
    order: list[int] = []
    loss = [0.0]
    while len(order) < units:
        left = units - len(order)
        go, costs = _next(state, alive, 1 if left <= EXACT else left // SHARE)
        for unit, cost in zip(ids[go].tolist(), costs, strict=True):
            order.append(unit)
            loss.append(loss[-1] + max(0.0, cost))
        alive[go] = False
        for p, w, b in state:
            _remove(p, w, columns_of(go, b))
        if len(ids) > _NARROW and int(alive.sum()) <= SPARE * len(ids):
            # What has gone is all zeros by now, and costs as much as what is left.
            there = torch.nonzero(alive).flatten()
            state = [_narrowed(p, w, b, there) for p, w, b in state]
            alive, ids = alive[there], ids[there]
    return Elimination(torch.tensor(order), torch.tensor(loss, dtype=torch.float64))


_State = list[tuple[Tensor, Tensor, int]]  # inverse, weight, b of every reader


def _next(state: _State, alive: Tensor, count: int) -> tuple[Tensor, list[float]]:
    """The next units to go, and what each costs once those before it have gone.

    One unit is the cheapest of all. Several are taken one after another from twice as many: the
    formulas hold on any part of the columns, so the costs are exact, and twins do not go together.
    """
    cost = torch.where(alive, sum(_costs(p, w, b, alive) for p, w, b in state), torch.inf)
    cheapest = cost.argsort(stable=True)
    if count == 1:
        return cheapest[:1], [float(cost[cheapest[0]])]
    near = cheapest[: 2 * count]
    part = [_narrowed(p, w, b, near) for p, w, b in state]
    there = torch.ones(len(near), dtype=torch.bool)
    taken, costs = [], []
    for _ in range(count):
        cost = torch.where(there, sum(_costs(p, w, b, there) for p, w, b in part), torch.inf)
        one = cost.argmin()
        taken.append(one)
        costs.append(float(cost[one]))
        there[one] = False
        for p, w, b in part:
            _remove(p, w, columns_of(one.view(1), b))
    return near[torch.stack(taken)], costs


def _narrowed(inverse: Tensor, weight: Tensor, each: int, units: Tensor) -> tuple[Tensor, Tensor, int]:
    """The state of some of the units."""
    own = columns_of(units, each)
    return inverse[own][:, own], weight[:, own], each


def _costs(inverse: Tensor, weight: Tensor, each: int, alive: Tensor) -> Tensor:
    """What removing each unit costs, ``[U]``; meaningless for those that have gone."""
    units = len(alive)
    if each == 1:
        # A system of one equation is a division.
        return weight.square().sum(0) / torch.where(alive, inverse.diagonal(), 1.0)
    blocks = inverse.view(units, each, units, each).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    blocks = torch.where(alive.view(-1, 1, 1), blocks, torch.eye(each, dtype=inverse.dtype))
    parts = weight.view(len(weight), units, each).permute(1, 2, 0)  # [U, b, O]
    return torch.linalg.solve(blocks, parts @ parts.mT).diagonal(dim1=1, dim2=2).sum(1)


def _remove(inverse: Tensor, weight: Tensor, columns: Tensor) -> None:
    """Take columns out of the regression, in place; theirs become 0."""
    rows = inverse[columns]
    down = torch.linalg.solve(rows[:, columns], rows)
    weight.sub_(weight[:, columns] @ down)
    inverse.sub_(rows.T @ down)
    inverse[columns] = 0.0
    inverse[:, columns] = 0.0
    weight[:, columns] = 0.0
