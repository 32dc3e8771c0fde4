"""``compare.json``: one row a method × budget × seed × recovery. A stable contract, schema 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coprune.documents import Document, Value
from coprune.files import Count, Figure


class BaseFigures(Value):
    """The unpruned model: its metric on held-out samples, MACs, parameters.

    Attributes:
        metric: what all values are: ``top1``, ``miou``, ``perplexity``, …
        unit: ``%``, a share; empty, its own.
        samples: held-out ones that gave all values.
        constant: top-1 of always answering the commonest class; None where there are no classes.
    """

    metric: str = "top1"
    higher_is_better: bool = True
    unit: str = "%"
    value: Figure
    macs: Count
    params: Count
    samples: Count | None = None
    constant: Figure | None = None


class Row(Value):
    """One pruned model.

    Attributes:
        budget: share of the MACs asked for, or ``knee``: a method with a knee used its own, every
            other method got the MACs that the first such method came to, for the same seed.
        macs_ratio: share of the MACs that was reached.
        pruned: the metric right after surgery, held-out.
        recovered: after recovery and before training; None without recovery.
        finetuned: after equal training; None without training.
        allocation: how the budget was shared out: ``uniform``, ``measured``, or ``joint`` by a method that
            chooses from all groups together; None in older files.
        recovery: one of :data:`coprune.recovery.RECOVERIES`.
        kept: units kept; None in older files.
        seconds: the row took.
        rate: the learning rate that ``finetuned`` was trained with; None also where every rate diverged.
        notes: what is to be known of the row, in words.
    """

    method: str
    budget: Figure | str
    seed: int
    macs_ratio: Figure
    pruned: Figure | None = None
    recovered: Figure | None = None
    finetuned: Figure | None = None
    allocation: str | None = None
    recovery: str = "none"
    kept: Count | None = None
    seconds: Figure = 0
    rate: Figure | None = None
    notes: tuple[str, ...] = ()


class Comparison(Document):
    """All rows, and what they have in common.

    Attributes:
        base: what was pruned.
        rows: in the order in which they were made.
        notes: what is to be known of all rows, in words.
        left_out: who could not keep a budget on this network, and why, in words; there is no row of it.
        job: what was asked.
        versions: of what computed it.
    """

    what = "comparison"

    base: BaseFigures
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    job: Mapping[str, Any] = {}
    versions: Mapping[str, str] = {}
