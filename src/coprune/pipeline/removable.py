"""Which units a run may remove: kinds that were asked for, and groups that were found and tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from coprune.data import Source
from coprune.data.subsample import spread_batches
from coprune.errors import UserError, setting
from coprune.groups import Units, find_units
from coprune.groups.channels import run_for_some
from coprune.pipeline.settings import DEFAULT_KINDS
from coprune.skipped import COUPLED, SkipCode, because
from coprune.surgery import sound
from coprune.tracing.forward import Counts, Inputs, counted, moved, taking

KINDS = (*DEFAULT_KINDS, "coupled")
"""Kinds of groups that can be removed."""

_FEW = 8  # samples of a pass that shows which layers run


@dataclass(frozen=True)
class Scope:
    """What of a network may be removed.

    Attributes:
        kinds: of groups; the others are reported as left alone.
        offered: kinds that might have been asked for, which a budget out of reach is pointed to.
        skip: layers to leave alone.
        only: layers whose groups may be pruned, and nothing else; empty: all.
        uniform: groups of a kind and size keep the same number of units.
    """

    kinds: Sequence[str] = DEFAULT_KINDS
    offered: Sequence[str] = KINDS
    skip: Sequence[str] = ()
    only: Sequence[str] = ()
    uniform: bool = False


def removable(
    model: nn.Module, example: Inputs, source: Source, scope: Scope, counts: Counts = counted
) -> tuple[Units, str]:
    """Find what may be removed; groups of channels are tried first (:func:`coprune.surgery.sound`).

    Args:
        model: unpruned, on the CPU.
        example: one sample ``[1, …]``.
        source: calibration samples, a few of which show which layers run.
        scope: what may be removed.
        counts: takes what counts out of what the model hands back.

    Returns:
        The units, and how more could be removed, for the end of a message.

    Raises:
        UserError: nothing can be removed (with all reasons).
    """
    partly = _run_for_some(model, source, example)
    coupled = "coupled" in scope.kinds
    every = find_units(
        model, example, skip=scope.skip, only=scope.only, coupled=coupled, partly=partly, counts=counts
    )
    more = _way_out(every, scope)
    units = sound(model, _of_kinds(every, scope.kinds), example, counts=counts)
    if units.groups:
        return units, more
    layers: dict[str, list[str]] = {}
    for skipped in units.skipped:
        layers.setdefault(skipped.reason, []).append(skipped.layer)
    named = [f"{', '.join(n[:3])}{' …' * (len(n) > 3)}: {reason}" for reason, n in layers.items()]
    why = "; ".join(named[:6]) or "it has no dense layers"
    raise UserError(f"nothing in this {type(model).__name__} can be pruned: {why}{more}")


def _run_for_some(model: nn.Module, source: Source, example: Inputs) -> set[str]:
    """Layers that some of a few samples do not pass; see :func:`coprune.groups.channels.run_for_some`."""
    found: set[str] = set()
    few = spread_batches(source, 4 * _FEW, batch_size=_FEW)[:4] if isinstance(example, Tensor) else ()
    for inputs in (moved(batch, "cpu") for batch in few):
        with taking(model, inputs):
            found |= run_for_some(model, [example, inputs])
    return found


def _way_out(units: Units, scope: Scope) -> str:
    """How more could be removed, for the end of a message; nothing where there is no more."""
    there = {g.kind for g in units.groups}
    if any(s.code in COUPLED for s in units.skipped):
        there.add("coupled")
    left = [kind for kind in scope.offered if kind in there and kind not in scope.kinds]
    if not left:
        return ""
    asked = [kind for kind in scope.offered if kind in scope.kinds and (kind in there or kind == "inner")]
    words = {"inner": "channels", "coupled": "coupled channels"}
    removed = " and ".join(words.get(kind, kind) for kind in left)
    return f"; {setting('units', (*asked, *left))} removes {removed} too"


def _of_kinds(units: Units, kinds: Sequence[str]) -> Units:
    wanted = " and ".join("channels" if kind == "inner" else kind for kind in kinds)
    left = tuple(
        because(SkipCode.OTHER_KIND, kinds=wanted).of(g.name) for g in units.groups if g.kind not in kinds
    )
    return Units(tuple(g for g in units.groups if g.kind in kinds), (*left, *units.skipped))
