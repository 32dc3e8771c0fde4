"""The steps that ``prune`` and ``compare`` share, each a function of the values of the step before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from coprune.budget.counts import OutOfReachError, least_counts
from coprune.budget.decide import Choices
from coprune.budget.sensitivity_curves import measured_curves
from coprune.budget.validation import Measured, Trial
from coprune.data import DataSet, LoaderSource, MemorySource, Source
from coprune.data.dataset import check_classes, in_memory
from coprune.data.sharding import own_batches
from coprune.data.source import name_of, where_in
from coprune.data.subsample import spread_batches
from coprune.distributed.world import world
from coprune.errors import UserError, setting
from coprune.groups import CostModel, Quantity, Units, cost_model, find_units
from coprune.groups.channels import run_for_some
from coprune.measure.accuracy import check_outputs
from coprune.measure.memory import check_batches
from coprune.plan import GroupDecision, Skipped
from coprune.recovery import Recovered, kept_outputs, recovered
from coprune.statistics import Calibration, Profile, Statistic, collect
from coprune.surgery import sound
from coprune.tracing.forward import FAILURES, Inputs, check_takes, moved, part_of, taking
from coprune.training import Recipe
from coprune.training.check import check_trains
from coprune.user_code import within

KINDS = ("inner", "heads", "neurons", "coupled")
"""Kinds of groups that can be removed."""

DEFAULT_KINDS = ("inner", "heads", "neurons")
"""Those that are, unless the user says otherwise."""

UnitWord = Literal["channels", "inner", "coupled", "heads", "neurons"]
"""What a user may ask for; ``channels`` are inner ones."""

_LARGE = 0.05  # share of the cost from which a layer that is left alone is named

_FEW = 8  # samples of a pass that shows which layers run

_LOOK = 250  # samples of a pass


@dataclass(frozen=True)
class Prepared:
    """A model looked at: one sample to trace with, its groups and what they cost.

    Attributes:
        more: what would let more be removed, in words.
    """

    example: Inputs
    units: Units
    cost: CostModel
    more: str = ""

    @contextmanager
    def within_reach(self) -> Iterator[None]:
        """Within the context, a budget out of reach is said to be so with the way out that there is.

        Raises:
            UserError: instead of :class:`coprune.budget.counts.OutOfReachError`.
        """
        try:
            yield
        except OutOfReachError as cause:
            raise UserError(f"{cause}{self._in_the_way(cause.quantity)}{self.more}") from cause

    def _in_the_way(self, quantity: Quantity | None) -> str:
        """The layers that cost most when all others are as small as can be, and why they are left alone."""
        if quantity is None:
            return ""
        reasons = {s.layer: s.reason for s in self.units.skipped}
        costs = self.cost.by_layer(least_counts(self.cost.sizes), quantity)
        large = [
            f"{n} {share:.3f} ({reasons[n]})"
            for n, share in costs.items()
            if n in reasons and share >= _LARGE
        ]
        return f"; in the way: {', '.join(large[:3])}" if large else ""


def prepare(
    model: nn.Module,
    data: DataSet,
    *,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    kinds: Sequence[str] = DEFAULT_KINDS,
    offered: Sequence[str] = (*DEFAULT_KINDS, "coupled"),
) -> Prepared:
    """Find what can be removed.

    Args:
        model: unpruned.
        data: one held-out sample is traced with.
        skip: layers to leave alone.
        only: layers whose groups may be pruned, and nothing else; empty: all.
        kinds: of groups that may be removed; the others are reported as left alone. Coupled groups are
            tried first (:func:`coprune.surgery.sound`).
        offered: kinds that might have been asked for, which a budget out of reach is pointed to.

    Raises:
        UserError: the model does not take the data, or nothing can be removed (with all reasons).
    """
    inputs, _ = next(iter(data.heldout.batches(1)))
    example = moved(part_of(inputs, [0]), "cpu")
    model.cpu()
    with within(name_of(data.heldout)):
        check_takes(model, example)
    check_first_samples(model, data)
    coupled = "coupled" in kinds
    some = _run_for_some(model, data.calibration, example)
    every = find_units(model, example, skip=skip, only=only, coupled=coupled, partly=some)
    more = _way_out(every, kinds, offered)
    units = sound(model, _of_kinds(every, kinds), example)
    if not units.groups:
        layers: dict[str, list[str]] = {}
        for s in units.skipped:
            layers.setdefault(s.reason, []).append(s.layer)
        named = [(", ".join(n[:3]) + " …" * (len(n) > 3), reason) for reason, n in layers.items()]
        why = "; ".join(f"{n}: {reason}" for n, reason in named[:6]) or "it has no dense layers"
        raise UserError(f"nothing in this {type(model).__name__} can be pruned: {why}{more}")
    return Prepared(example, units, cost_model(model, example, units.groups), more)


def check_first_samples(model: nn.Module, data: DataSet) -> None:
    """Refuse training or calibration samples of another kind than the model takes, before anything is done.

    Raises:
        UserError: names the argument that a user's own loader was given by.
    """
    for source in (data.train, data.calibration):
        if not name_of(source):
            continue
        if isinstance(source, LoaderSource):
            examples, highest = source.examples, source.highest
        else:
            examples, highest = {0: part_of(next(source.batches(1))[0], [0])}, 0
        for number, example in examples.items():
            with within(where_in(source, number)):
                logits = check_takes(model, moved(example, "cpu"))
        if examples and logits.ndim == 2:
            with within(name_of(source)):
                check_outputs(logits, torch.tensor([highest]))


def check_trainings(
    model: nn.Module, data: DataSet, example: Inputs, recipes: Iterable[Recipe], *, device: str
) -> None:
    """Find what would stop a training before any work.

    Args:
        model: to be trained, or to be cut before.
        data: a batch is never larger than its training part.
        example: one sample, ``[1, …]``.
        recipes: of the trainings.
        device: where.

    Raises:
        UserError: see :func:`coprune.training.check.check_trains`; or a batch that is larger than the memory.
    """
    for recipe in recipes:
        check_trains(model, example, recipe, classes=data.classes, device=device)
        size = min(recipe.batch_size, len(data.train))
        check_batches(model, example, [size], name="batch_size", device=device)


def _run_for_some(model: nn.Module, source: Source, example: Inputs) -> dict[str, str]:
    """Layers that some of a few samples do not pass; see :func:`coprune.groups.channels.run_for_some`."""
    if not isinstance(example, Tensor):
        return {}
    found: dict[str, str] = {}
    for few in spread_batches(source, 4 * _FEW, batch_size=_FEW)[:4]:
        inputs = moved(few, "cpu")
        with taking(model, inputs):
            found |= run_for_some(model, [example, inputs])  # type: ignore[list-item]
    return found


def kinds_asked(units: Sequence[str]) -> tuple[str, ...]:
    """Kinds of groups that a user's words stand for; without any, the default ones."""
    return tuple("inner" if unit == "channels" else unit for unit in units) or DEFAULT_KINDS


def _way_out(units: Units, kinds: Sequence[str], offered: Sequence[str]) -> str:
    """How more could be removed, for the end of a message; nothing where there is no more."""
    there = {g.kind for g in units.groups}
    if any(s.reason.startswith("coupled") for s in units.skipped):
        there.add("coupled")
    left = [kind for kind in offered if kind in there and kind not in kinds]
    if not left:
        return ""
    asked = [kind for kind in offered if kind in kinds and (kind in there or kind == "inner")]
    words = {"inner": "channels", "coupled": "coupled channels"}
    said = " and ".join(words.get(kind, kind) for kind in left)
    return f"; {setting('units', (*asked, *left))} removes {said} too"


def _of_kinds(units: Units, kinds: Sequence[str]) -> Units:
    wanted = " and ".join("channels" if kind == "inner" else kind for kind in kinds)
    left = tuple(
        Skipped(layer=g.name, reason=f"left alone: only {wanted} are removed")
        for g in units.groups
        if g.kind not in kinds
    )
    return Units(tuple(g for g in units.groups if g.kind in kinds), (*left, *units.skipped))


def gather_for(
    model: nn.Module,
    prepared: Prepared,
    source: Source,
    statistics: Sequence[Statistic],
    *,
    classes: int,
    device: str,
    known: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Profile:
    """The profile that some methods asked for.

    Args:
        model: unpruned.
        prepared: its groups and their cost.
        source: calibration samples.
        statistics: what to gather.
        classes: of the labels.
        device: where to compute.
        known: statistic → tensors that were gathered before, and are not again.

    Raises:
        UserError: see :func:`coprune.statistics.collect`; or too few samples of a class for what is
            asked for.
    """
    have = dict(known or {})
    missing = {s.key: s for s in statistics if s.key not in have}
    if isinstance(source, MemorySource) and any(s.per_class for s in missing.values()):
        check_classes(source.labels, classes, where="calibration samples")
    try:
        calibration = Calibration(model, prepared.units.groups, source, classes, device=device)
        found = collect(calibration, missing.values())
    except UserError:
        raise
    except FAILURES:
        # Whose fault is it? No exchange here: other processes know nothing of this.
        model.to(device)
        for batch in own_batches(source, _LOOK):
            with within(name_of(source)):
                check_takes(model, moved(batch.inputs, device))
        raise
    return Profile(prepared.units.groups, {**have, **found}, device)


def gather_few(
    model: nn.Module,
    prepared: Prepared,
    source: Source,
    statistics: Sequence[Statistic],
    *,
    classes: int,
    device: str,
) -> dict[str, dict[str, Tensor]]:
    """Statistics of a few samples, to compare names, shapes and types with; as :func:`gather_for`."""
    few = in_memory([next(iter(source.batches(max(2, world()))))])
    # A batch a sample: every process has one.
    groups = prepared.units.groups
    return collect(Calibration(model, groups, few, classes, batch_size=1, device=device), statistics)


def measured_for(
    model: nn.Module,
    choices: Choices,
    source: Source,
    example: Inputs,
    *,
    allocation: str,
    seed: int,
    device: str,
) -> Measured | None:
    """What the measured allocation goes by; None for the other allocations.

    Args:
        model: unpruned.
        choices: what the method says.
        source: calibration samples; labels are not read.
        example: one input to trace with.
        allocation: see :func:`coprune.budget.decide.counts`.
        seed: of the trials.
        device: where to compute.
    """
    if allocation != "measured":
        return None
    curves = measured_curves(model, choices, source, device=device)  # type: ignore[arg-type]
    model.cpu()
    return Measured(curves, Trial(model, example, source, seed, device))


def recover(
    model: nn.Module,
    teacher: nn.Module,
    decisions: Sequence[GroupDecision],
    source: Source,
    *,
    how: str,
    seed: int,
    device: str,
) -> Recovered:
    """Bring accuracy back without labels, in place.

    Args:
        model: right after surgery.
        teacher: the unpruned model.
        decisions: what was cut.
        source: calibration samples; labels are not read.
        how: one of :data:`coprune.recovery.RECOVERIES`.
        seed: see :func:`coprune.recovery.recovered`.
        device: where to compute.
    """
    kept = kept_outputs(teacher, decisions)
    did = recovered(model, teacher, source, how=how, kept=kept, decisions=decisions, seed=seed, device=device)
    teacher.cpu()
    return did
