"""Which kept units predict a removed one.

Shapes: ``U`` units, ``K`` kept, ``R`` removed, ``e`` channels of a unit (a head has many).
"""

from __future__ import annotations

import torch
from torch import Tensor

from coprune.groups import columns_of, removed
from coprune.plan import Prediction
from coprune.recovery.ridge import RIDGE, growing_factor

_LISTED = 6


def unit_covariance(covariance: Tensor, units: int) -> Tensor:
    """Covariance of the units' values at one pixel, ``[U, U]``, averaged over the ``b`` of a place.

    Args:
        covariance: of what a consumer reads, ``[U·b, U·b]``, unit-major.
        units: ``U``.
    """
    each = len(covariance) // units
    blocks = covariance.view(units, each, units, each)
    return blocks.diagonal(dim1=1, dim2=3).mean(-1)


def similarity(covariance: Tensor, each: int) -> Tensor:
    """How much two units vary together, 0 … 1, ``[U, U]``: |correlation|, for several channels √RV.

    RV (Escoufier 1973; Robert & Escoufier 1976) is ‖C_ij‖² / (‖C_ii‖ ‖C_jj‖) in Frobenius norms; it
    does not depend on how the channels of a unit are rotated.

    Args:
        covariance: ``[U·e, U·e]`` float64, unit-major.
        each: ``e``.
    """
    units = len(covariance) // each
    square = covariance.view(units, each, units, each).square().sum((1, 3))
    scale = square.diagonal().clamp_min(1e-60).sqrt()
    return (square / scale.outer(scale)).clamp(0, 1).sqrt()


def predictions(
    covariance: Tensor, kept: Tensor, *, each: int = 1, ridge: float = RIDGE
) -> tuple[Prediction, ...]:
    """Regress every removed unit on the kept ones, all channels of the one on all of the others.

    A kept unit's part is its coefficient times its covariance with the removed one, over the removed
    one's variance: parts add up to R² (Pratt's measure, 1987; Thomas, Hughes & Zumbo 1998). Of units
    with several channels both are sums over channels. Negative parts (suppressors) are counted as
    none, and the others scaled to add up to R² again.

    Args:
        covariance: of the units, ``[U·e, U·e]`` float64, unit-major.
        kept: ``[K]`` int64, sorted.
        each: ``e``.
        ridge: λ, relative to the mean diagonal.

    Returns:
        An entry a removed unit, in their order. A unit that never varies is fully explained.
    """
    units = len(covariance) // each
    gone = removed(kept, units)
    columns, rows = columns_of(kept, each), columns_of(gone, each)
    factor = growing_factor(covariance[columns][:, columns], ridge=ridge, scale=covariance.diagonal().mean())
    cross = covariance[rows][:, columns]  # [R·e, K·e]
    coefficients = torch.cholesky_solve(cross.T, factor).T
    spread = covariance.diagonal().view(units, each).sum(1)
    variance = spread[gone]
    products = (coefficients * cross).view(len(gone), each, len(kept), each).sum((1, 3))
    parts = products / variance.clamp_min(1e-30).unsqueeze(1)
    explained = parts.sum(1).clamp(0, 1)
    positive = parts.clamp_min(0)
    positive = positive * (explained / positive.sum(1).clamp_min(1e-30)).unsqueeze(1)
    # A unit that never varies is fully explained, by nobody.
    still = variance <= 1e-12 * spread.max()
    explained[still], positive[still] = 1.0, 0.0
    shares, index = positive.topk(min(_LISTED, len(kept)), dim=1)
    entries = []
    for unit, r2, units_by, parts_by in zip(gone, explained, kept[index], shares, strict=True):
        by = zip(units_by.tolist(), (round(s, 4) for s in parts_by.tolist()), strict=True)
        known = tuple((u, s) for u, s in by if s > 0)
        entries.append(Prediction(unit=int(unit), explained=round(float(r2), 4), by=known))
    return tuple(entries)
