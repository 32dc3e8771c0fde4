"""Which kept units say what a removed one said.

Shapes: ``U`` units, ``K`` kept, ``R`` removed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coprune.plan import TakeOver

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


def took_over(covariance: Tensor, kept: Tensor, *, ridge: float = 1e-3) -> tuple[TakeOver, ...]:
    """Regress every removed unit on the kept ones.

    A kept unit's part is its coefficient times its covariance with the removed one, over the removed
    one's variance: parts add up to R² (Pratt's measure, 1987; Thomas, Hughes & Zumbo 1998). Negative
    parts (suppressors) are counted as none, and the others scaled to add up to R² again.

    Args:
        covariance: of the units, ``[U, U]`` float64.
        kept: ``[K]`` int64, sorted.
        ridge: λ, relative to the mean diagonal.

    Returns:
        An entry a removed unit, in their order. A unit that never varies says nothing: fully explained.
    """
    gone = torch.ones(len(covariance), dtype=torch.bool)
    gone[kept] = False
    removed = torch.nonzero(gone).flatten()
    system = covariance[kept][:, kept].clone()
    system.diagonal().add_(ridge * covariance.diagonal().mean().clamp_min(1e-30))
    cross = covariance[removed][:, kept]  # [R, K]
    coefficients = torch.linalg.solve(system, cross.T).T
    variance = covariance.diagonal()[removed]
    parts = coefficients * cross / variance.clamp_min(1e-30).unsqueeze(1)
    explained = parts.sum(1).clamp(0, 1)
    positive = parts.clamp_min(0)
    positive = positive * (explained / positive.sum(1).clamp_min(1e-30)).unsqueeze(1)
    still = variance <= 1e-12 * covariance.diagonal().max()
    shares, index = positive.topk(min(_LISTED, len(kept)), dim=1)
    entries = []
    for row, unit in enumerate(removed.tolist()):
        by = [(int(kept[i]), round(float(s), 4)) for s, i in zip(shares[row], index[row], strict=True)]
        entries.append(
            TakeOver(
                unit=unit,
                explained=1.0 if still[row] else round(float(explained[row]), 4),
                by=() if still[row] else tuple((u, s) for u, s in by if s > 0),
            )
        )
    return tuple(entries)
