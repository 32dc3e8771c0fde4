"""Before long work: whether the figures of a run can mean anything."""

from __future__ import annotations

import hashlib

from torch import Tensor

from coprune.data import Source
from coprune.data.subsample import spread
from coprune.errors import UserError, setting
from coprune.measure import Score
from coprune.result import Code, Note

FEW = 30
"""Calibration samples below which every statistic is a guess."""

_LOOKED_AT = 128
_ALIKE = 0.01


def check_base(score: Score, *, force: bool) -> list[Note]:
    """Refuse a model that answers no better than one class for everything would: what it loses means nothing.

    Args:
        score: of the unpruned model on held-out samples.
        force: go on, with a note.

    Raises:
        UserError: it is no surer than that.
    """
    if score.beats_constant:
        return []
    said = (
        f"the unpruned model is right on {score.top1:.2%} of {score.samples:,} held-out samples, and always "
        f"answering the commonest class on {score.constant:.2%}: nothing can be told from what it loses"
    )
    if not force:
        raise UserError(
            f"{said}; train it, check its weights, labels and normalisation, or go on with {setting('force')}"
        )
    return [Note(Code.NO_BETTER_THAN_CHANCE, said)]


def check_calibration(source: Source, *, force: bool = False) -> list[Note]:
    """Refuse samples that are all alike, on which batch norms and least squares learn nothing; note few ones.

    Args:
        source: calibration samples.
        force: go on, with a note.

    Raises:
        UserError: all of them are the same or constant, or differ by next to nothing.
    """
    inputs = spread(source, _LOOKED_AT)
    seen = inputs["input_ids"] if isinstance(inputs, dict) else inputs
    distinct = len({hashlib.blake2b(row.float().numpy().tobytes()).digest() for row in seen})
    if len(seen) > 1 and (distinct == 1 or (seen.ndim > 3 and _alike(seen.float().flatten(1)))):
        said = f"calibration samples: all {len(source):,} are alike or without content"
        if not force:
            raise UserError(f"{said}; give samples such as the model meets, or go on with {setting('force')}")
        return [Note(Code.ALIKE_SAMPLES, f"{said}: what was decided on them holds for no others")]
    if len(source) < FEW:
        said = f"{len(source)} calibration samples are few; {FEW} or more make statistics and recovery surer"
        return [Note(Code.FEW_SAMPLES, said)]
    if distinct < max(FEW, len(seen) / 2):
        said = (
            f"of {len(seen)} calibration samples looked at {distinct} differ; the others are copies of them"
        )
        return [Note(Code.FEW_SAMPLES, said)]
    return []


def _alike(images: Tensor) -> bool:
    """Whether images ``[N, P]`` hardly differ, or have no content: against how much all pixels differ."""
    whole = images.var()
    return bool(images.var(0).mean() <= _ALIKE * whole) or bool(images.var(1).mean() <= _ALIKE * whole)
