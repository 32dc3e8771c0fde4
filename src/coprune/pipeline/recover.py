"""``coprune recover``: accuracy back for a pruned model that came from anywhere, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor, nn

from coprune.data import split_source
from coprune.distributed.collectives import check_same
from coprune.errors import UserError
from coprune.measure import LatencyPlan
from coprune.measure.memory import check_batches
from coprune.models.canonicalize import canonicalize
from coprune.models.copies import copied
from coprune.pipeline.checks import check_calibration
from coprune.pipeline.context import Context
from coprune.pipeline.environment import pick_device, set_up
from coprune.pipeline.jobs import RecoverJob
from coprune.pipeline.judging import judging_of
from coprune.pipeline.opening import open_both, opened
from coprune.pipeline.outcome import Outcome
from coprune.pipeline.record import Record
from coprune.pipeline.run import Steps, run
from coprune.pipeline.run_folder import RunFolder
from coprune.pipeline.surviving import Surviving, check_made_of, cut_elsewhere, surviving
from coprune.pipeline.which_task import task_for
from coprune.plan import ELSEWHERE, Plan
from coprune.recovery import RECOVERIES
from coprune.result import HANDED_BACK, Code
from coprune.store.model import weights_fingerprint
from coprune.tracing.forward import check_takes

_JUDGING = 1 / 8


def run_recover(job: RecoverJob, *, out: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """Recover and write a run folder like that of ``coprune prune``; see :func:`coprune.pipeline.run.run`.

    Returns:
        The folder.
    """
    run("recover", job, _steps(job), out=out, resume=resume, overwrite=overwrite)
    return out


def _steps(job: RecoverJob) -> Steps:
    device = pick_device(job.device)
    set_up(threads=job.threads, seed=job.seed)
    teacher, data = open_both(job.of_teacher, seed=job.seed)
    model, teacher = canonicalize(opened(job, data, what="pruned model")), canonicalize(teacher)
    task = task_for(teacher, data, job.asked)
    context = Context.of(teacher, data, task=task, device=device, seed=job.seed, effort=job.effort)
    check_takes(model, context.example)
    own = Path(job.model) / "plan.json"
    place = Path(job.plan) if job.plan else own if own.is_file() else None
    given = Plan.load(place) if place else None
    check_made_of(given, teacher)
    left: Surviving | None = None
    try:
        left = surviving(model, teacher, data.calibration, given.groups if given else None)
    except UserError:
        # Batch norms need not know what was cut.
        if given is not None or RECOVERIES[job.recovery].compares:
            raise
    plan = _plan(context, job, given, left)
    check_batches(teacher, context.example, job.latency_batches, name="latency_batches", device=device)
    folder = yield job
    _recover(context, model, left.outputs if left else {}, plan, job, folder).write(folder.path)


def _recover(
    context: Context,
    model: nn.Module,
    kept: Mapping[str, Tensor],
    plan: Plan,
    job: RecoverJob,
    folder: RunFolder,
) -> Outcome:
    """Recover a copy, and hand the model back as it came where that would do harm."""
    data = context.data
    few = check_calibration(data.calibration)
    record = Record(context)
    record.notes += few
    record.stage("pruned", model)
    candidate = copied(model)
    # Samples that were solved on would judge in favour of what was solved.
    judging = judging_of(context)
    if data.validation is None:
        own, learning = split_source(data.calibration, (_JUDGING, 1 - _JUDGING), seed=job.seed)
        judging = replace(judging, source=own if len(own) else learning)
        context = replace(context, learning=learning)
    with record.timed("recover"):
        did = context.recover(candidate, plan.groups, job.recovery, kept=kept)
    check_same(candidate, weights_fingerprint, what="result of the recovery")
    before, after = judging.score(model), judging.score(candidate)
    loss, metric = judging.lost(before, after), judging.task.judged
    if loss.found > 0:
        # A model that was trained after surgery can be better than any layer-by-layer imitation.
        record.note(
            Code.HANDED_BACK,
            f"recovery would have made the {'accuracy' if metric.name == 'top1' else metric.name} worse on "
            f"{judging.samples} that it had not seen "
            f"({metric.shown(before.value)} → {metric.shown(after.value)}); {HANDED_BACK}",
        )
        candidate = model
        record.stages.append(record.stages[-1].model_copy(update={"name": "recovered"}))
    else:
        record.notes += did.notes
        record.stage("recovered", candidate)
    if did.together is not None:
        folder.log("reconstruction", **asdict(did.together))
    for layer in did.layers:
        folder.log("layer", name=layer.layer, before=layer.before, after=layer.after, changed=layer.changed)
    result = record.result(
        method=plan.method,
        units=plan.units,
        judged=judging.judged("recovery", loss),
        latency=context.latency(candidate, LatencyPlan(batches=job.latency_batches)),
    )
    return Outcome(candidate.cpu().eval(), plan, result, {}, example=context.example)


def _plan(context: Context, job: RecoverJob, given: Plan | None, left: Surviving | None) -> Plan:
    """The plan that cut the model; or, of a model without one, what it must have been."""
    settings = {"recovery": job.recovery, **context.task.settings}
    if given is not None:
        return given.model_copy(update={"settings": {**given.settings, **settings}})
    if left is not None and not left.outputs:
        raise UserError(f"model '{job.model}' has all the channels of '{job.teacher}'; nothing was pruned")
    units, data = context.units, context.data
    return Plan(
        method=ELSEWHERE,
        settings=settings,
        budget="as it came",
        seed=job.seed,
        model=context.fingerprint,
        data={"name": data.name, "fingerprint": data.fingerprint, "statistics": data.fingerprint},
        groups=() if left is None else cut_elsewhere(units.groups, left.outputs),
        skipped=units.skipped,
    )
