"""``coprune recover``: accuracy back for a pruned model that came from anywhere, without labels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from coprune.bounds import Batch, Calibration, Seed, Threads
from coprune.budget.search import paired_drop
from coprune.data import DataSet, Source, split_source
from coprune.data.subsample import spread
from coprune.distributed.collectives import check_same, first_goes_ahead, on_first
from coprune.distributed.world import world
from coprune.errors import UserError, setting
from coprune.groups import ChannelGroup, find_units
from coprune.layers import channel_count
from coprune.measure import LatencyPlan, measure_latency, measure_stage
from coprune.measure.memory import check_batches
from coprune.models.canonicalize import canonicalize
from coprune.models.copies import copied
from coprune.pipeline.context import Prepared, prepare
from coprune.pipeline.environment import pick_device, set_up, versions
from coprune.pipeline.jobs import offered_by, open_both
from coprune.pipeline.judging import Loss, judging_of
from coprune.pipeline.outcome import Outcome
from coprune.pipeline.sanity import check_calibration
from coprune.plan import ELSEWHERE, GroupDecision, Plan, ReasonCode
from coprune.recovery import (
    LayerRecovery,
    kept_outputs,
    matched_outputs,
    recovered,
)
from coprune.result import HANDED_BACK, Code, Note, Result
from coprune.store import open_model
from coprune.store.model import weights_fingerprint
from coprune.store.run_folder import RunFolder, check_out, claim
from coprune.surgery import check_fits
from coprune.tracing.forward import check_takes, part_of

_LOOKED_AT = 256
_JUDGING = 1 / 8


class RecoverJob(BaseModel):
    """Everything ``coprune recover`` can be asked for, but where to write.

    Attributes:
        model: the pruned model.
        teacher: the unpruned one.
        plan: the plan that cut it; that of the model's folder, or found by the channels' behaviour,
            when it is not given.
        recovery: ``least-squares``, ``reconstruction``, ``channel-least-squares``, or ``bn``, which needs not
            know what was cut.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    teacher: str
    data: str
    plan: str | None = None
    recovery: Literal["least-squares", "reconstruction", "channel-least-squares", "bn"] = "least-squares"
    weights: str | None = None
    arguments: Mapping[str, Any] = {}
    calibration: Calibration = 2000
    validation: str | None = None
    trust: bool = False
    latency_batches: tuple[Batch, ...] = (1, 32)
    seed: Seed = 0
    device: str = "auto"
    threads: Threads | None = None


@dataclass(frozen=True)
class Surviving:
    """What is left of the unpruned model.

    Attributes:
        outputs: layer → the unpruned layer's output channels that the pruned one still has, ``[K]``
            int64, for every layer that has lost some.
        decisions: what was cut.
    """

    outputs: Mapping[str, Tensor]
    decisions: tuple[GroupDecision, ...]


def surviving(
    model: nn.Module,
    teacher: nn.Module,
    source: Source,
    decisions: tuple[GroupDecision, ...] | None,
) -> Surviving:
    """What the pruned model still has of the unpruned one.

    Args:
        model: pruned.
        teacher: unpruned.
        source: calibration samples, looked at when nobody says what was cut.
        decisions: what was cut, when it is known.

    Raises:
        UserError: the decisions are for another model, or the channels cannot be told.
    """
    if decisions is not None:
        check_fits(teacher, decisions)
        return Surviving(kept_outputs(teacher, decisions), decisions)
    inputs = spread(source, _LOOKED_AT)
    found = find_units(teacher.cpu(), part_of(inputs, [0]), coupled=True).groups
    groups = [g for g in found if g.kind != "coupled"]
    for layer in (m.layer for g in found if g.kind == "coupled" for m in g.of_role("producer")):
        has = [channel_count(m.get_submodule(layer), "output") for m in (model, teacher)]
        if has[0] != has[1]:
            raise UserError(
                f"layer '{layer}' has {has[0]} of {has[1]} channels that other layers share, and it "
                f"cannot be told which; give the plan that cut it with {setting('plan')}"
            )
    outputs = matched_outputs(model.cpu(), teacher, inputs, groups)
    return Surviving(outputs, _cut_elsewhere(groups, outputs))


def check_made_of(plan: Plan | None, teacher: nn.Module) -> None:
    """Refuse a plan that cut another model than the one that is given as unpruned.

    Args:
        plan: what was cut, where that is known.
        teacher: as it is worked with, see :func:`coprune.models.canonicalize.canonical_copy`.

    Raises:
        UserError: its weights are not those that the plan was made of.
    """
    if plan is not None and plan.model != weights_fingerprint(teacher):
        raise UserError(
            "plan for another model: the weights of the unpruned one are not those that were cut; give the "
            "model that the plan was made of"
        )


def run_recover(
    job: RecoverJob, *, out: Path, resume: bool = False, overwrite: bool = False
) -> tuple[Path, tuple[LayerRecovery, ...]]:
    """Recover and write a run folder like that of ``coprune prune``.

    Returns:
        The folder, and what was done to every layer (nothing for a run that was whole already).
    """
    check_out(out, job, resume=resume, overwrite=overwrite)
    device = pick_device(job.device)
    set_up(threads=job.threads, seed=job.seed)
    teacher, data = open_both(
        job.teacher,
        job.data,
        weights=None,
        arguments={},
        calibration=job.calibration,
        seed=job.seed,
        trust=job.trust,
        validation=job.validation,
    )
    with first_goes_ahead():
        model = open_model(
            job.model,
            weights=Path(job.weights) if job.weights else None,
            arguments=job.arguments,
            offered=offered_by(data),
            trust=job.trust,
        )
    check_same(model, weights_fingerprint, what="pruned model")
    model, teacher = canonicalize(model), canonicalize(teacher)
    prepared = prepare(teacher, data)
    check_takes(model, prepared.example)
    own = Path(job.model) / "plan.json"
    place = Path(job.plan) if job.plan else own if own.is_file() else None
    given = Plan.load(place) if place else None
    check_made_of(given, teacher)
    left = _told(model, teacher, data, given, job)
    kept = None if left is None else left.outputs
    plan = _plan(given, kept, teacher, prepared, data, job)
    check_batches(teacher, prepared.example, job.latency_batches, name="latency_batches", device=device)
    folder = claim(out, job={"recover": job.model_dump(mode="json")}, resume=resume, overwrite=overwrite)
    if folder.finished:
        return out, ()
    with folder:
        outcome, layers = _recover(
            model, teacher, kept or {}, plan, prepared, data, job, folder, device=device
        )
        outcome.write(folder.path)
        folder.close()
    return out, layers


def _recover(
    model: nn.Module,
    teacher: nn.Module,
    kept: Mapping[str, Tensor],
    plan: Plan,
    prepared: Prepared,
    data: DataSet,
    job: RecoverJob,
    folder: RunFolder,
    *,
    device: str,
) -> tuple[Outcome, tuple[LayerRecovery, ...]]:
    example = prepared.example
    noted = [*(Note(Code.DATA, said) for said in data.notes), *check_calibration(data.calibration)]
    stages = [
        measure_stage("base", teacher, data, example, device=device),
        measure_stage("pruned", model, data, example, device=device),
    ]
    candidate = copied(model)
    started = time.monotonic()
    # Samples that were solved on would judge in favour of what was solved.
    judging, learning = judging_of(data), data.calibration
    if data.validation is None:
        own, learning = split_source(data.calibration, (_JUDGING, 1 - _JUDGING), seed=job.seed)
        judging = replace(judging, source=own if len(own) else learning)
    did = recovered(
        candidate,
        teacher,
        learning,
        how=job.recovery,
        kept=kept,
        decisions=plan.groups,
        seed=job.seed,
        device=device,
    )
    seconds = time.monotonic() - started
    check_same(candidate, weights_fingerprint, what="result of the recovery")
    teacher.cpu()
    candidate.cpu()
    before, after = (judging.right(m, device=device) for m in (model, candidate))
    loss = Loss(*paired_drop(before, after, z=judging.z))
    if loss.found > 0:
        # A model that was trained after surgery can be better than any layer-by-layer imitation.
        said = (
            f"recovery would have lowered the accuracy on {judging.samples} that it had not seen "
            f"({before.double().mean():.2%} → {after.double().mean():.2%}); {HANDED_BACK}"
        )
        notes = [*noted, Note(Code.HANDED_BACK, said)]
        candidate = model
        stages.append(stages[-1].model_copy(update={"name": "recovered"}))
    else:
        notes = [*noted, *did.notes]
        stages.append(measure_stage("recovered", candidate, data, example, device=device))
    if did.together is not None:
        folder.log("reconstruction", **asdict(did.together))
    for layer in did.layers:
        folder.log("layer", name=layer.layer, before=layer.before, after=layer.after, changed=layer.changed)
    batches = LatencyPlan(batches=job.latency_batches)
    result = Result(
        method=plan.method,
        seed=job.seed,
        units=plan.units,
        stages=tuple(stages),
        judged=judging.judged("recovery", loss),
        calibration=len(data.calibration),
        latency=on_first(lambda: measure_latency(teacher, candidate, example, batches, device=device)),
        seconds={
            "profile": 0.0, "select": 0.0, "surgery": 0.0, "recover": round(seconds, 3), "finetune": 0.0
        },
        versions=versions(),
        processes=world(),
        notes=tuple(notes),
    )  # fmt: skip
    return Outcome(candidate.cpu().eval(), plan, result, {}, example=example), did.layers


def _told(
    model: nn.Module, teacher: nn.Module, data: DataSet, given: Plan | None, job: RecoverJob
) -> Surviving | None:
    """See :func:`surviving`; None where it cannot be told and need not be."""
    try:
        return surviving(model, teacher, data.calibration, given.groups if given else None)
    except UserError:
        if given is None and job.recovery == "bn":
            return None
        raise


def _units_left(group: ChannelGroup, kept: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Units of a group that are still there, by the channels that one of its producers still makes."""
    member = next((m for m in group.of_role("producer") if m.layer in kept), None)
    if member is None:
        return tuple(range(group.size))
    end = member.offset + group.size * member.span
    own = [c - member.offset for c in kept[member.layer].tolist() if member.offset <= c < end]
    units = sorted({c // member.span for c in own})
    if len(units) * member.span != len(own):
        raise UserError(
            f"layer '{member.layer}': it cannot be told which {group.kind} stayed; give the plan "
            f"({setting('plan')})"
        )
    return tuple(units)


def _cut_elsewhere(groups: Iterable[ChannelGroup], kept: Mapping[str, Tensor]) -> tuple[GroupDecision, ...]:
    """What must have been cut, by the channels that the layers still make."""
    return tuple(
        GroupDecision(
            name=group.name,
            members=group.members,
            size=group.size,
            kept=_units_left(group, kept),
            reason="cut elsewhere; told by the channels' behaviour on calibration samples",
            reason_code=ReasonCode.ELSEWHERE,
            kind=group.kind,
        )
        for group in groups
    )


def _plan(
    given: Plan | None,
    kept: Mapping[str, Tensor] | None,
    teacher: nn.Module,
    prepared: Prepared,
    data: DataSet,
    job: RecoverJob,
) -> Plan:
    """The plan that cut the model; or, of a model without one, what it must have been."""
    if given is not None:
        return given.model_copy(update={"settings": {**given.settings, "recovery": job.recovery}})
    groups = () if kept is None else _cut_elsewhere(prepared.units.groups, kept)
    if kept is not None and not kept:
        raise UserError(f"model '{job.model}' has all the channels of '{job.teacher}'; nothing was pruned")
    return Plan(
        schema=1,
        method=ELSEWHERE,
        settings={"recovery": job.recovery},
        budget="as it came",
        seed=job.seed,
        model=weights_fingerprint(teacher),
        data={"name": data.name, "fingerprint": data.fingerprint, "statistics": data.fingerprint},
        groups=groups,
        skipped=prepared.units.skipped,
    )
