"""``coprune prune``: model + data → a physically smaller model with its plan and its figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coprune.compat.transformers import is_transformers_model
from coprune.data import DataSet, LoaderSource
from coprune.distributed.collectives import check_same, on_first
from coprune.files import dispensable
from coprune.measure import LatencyPlan
from coprune.models.hf import fresh_parameters
from coprune.pipeline.checks import check_base, check_calibration, few_rows
from coprune.pipeline.divergence import Choosing, statistics_for
from coprune.pipeline.finetune import finetuned
from coprune.pipeline.jobs import PruneJob
from coprune.pipeline.judging import more_lost, notes_on
from coprune.pipeline.layerwise import prune_layer_by_layer
from coprune.pipeline.opening import open_both
from coprune.pipeline.outcome import Outcome, is_written
from coprune.pipeline.pruning import Pruning
from coprune.pipeline.record import Record
from coprune.pipeline.run import Steps, run
from coprune.pipeline.run_folder import RunFolder
from coprune.pipeline.search import Objective, Selection, why_nothing
from coprune.pipeline.settings import PruneSettings, trained_as_suits
from coprune.pipeline.which_task import Asked
from coprune.plan import Plan
from coprune.result import Code
from coprune.statistics import Profile
from coprune.store.config_sizes import opened_by
from coprune.store.model import weights_fingerprint
from coprune.store.profile import load_profile, save_profile
from coprune.tracing.checkpointing import passed_over


def prune_model(
    model: nn.Module, data: DataSet, settings: PruneSettings, asked: Asked | None = None
) -> Outcome:
    """Prune a model that is held already; see :class:`coprune.pipeline.pruning.Pruning` and :func:`prune`."""
    return prune(Pruning.of(model, data, settings, asked))


def run_prune(job: PruneJob, *, out: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """Prune what a job names and write the run folder; see :func:`coprune.pipeline.run.run`.

    Returns:
        The run folder.
    """
    run("prune", job, _steps(job), out=out, resume=resume, overwrite=overwrite)
    return out


def _steps(job: PruneJob) -> Steps:
    model, data = open_both(job, seed=job.settings.seed)
    pruning = Pruning.of(model, data, job.settings, job.asked)
    settings = trained_as_suits(job.settings, pruning.context.model)
    folder = yield job.model_copy(update={"settings": settings})
    if not on_first(lambda: is_written(folder.path)):
        prune(pruning, folder).write(folder.path)


def prune(run: Pruning, folder: RunFolder | None = None) -> Outcome:
    """Select, cut, recover, train and measure.

    Several processes share out the passes over data and do all else alike; that they hold the same plan
    and the same weights is checked.

    Args:
        run: what to do, with what.
        folder: where unfinished state is kept, so that an interrupted run can go on.

    Raises:
        UserError: anything about model, data or settings that the user can mend.
    """
    context, settings = run.context, run.settings
    torch.manual_seed(settings.seed)
    checkpointed = passed_over()
    record = _begun(run)
    profile: Profile | None = None
    if settings.schedule == "layerwise":
        with record.timed("select"), context.within_reach():
            decisions, pruned = prune_layer_by_layer(run, folder)
            selection = Selection(decisions=decisions)
    else:
        with record.timed("profile"):
            profile = _statistics(run, folder)
        with record.timed("select"), context.within_reach():
            selection = _select(run, record, profile, folder)
        with record.timed("surgery"):
            pruned = context.cut(selection.decisions)
    record.notes += selection.notes
    judged = run.judging.judged_search(selection.probes, selection.allowed)
    plan = _plan(run, selection, folder)
    record.stage("pruned", pruned)
    if record.stages[1].macs >= record.stages[0].macs:
        record.note(Code.NOTHING_REMOVED, f"nothing was removed: {why_nothing(run, selection)}")
    else:
        _recover(run, record, pruned, selection, folder)
        if settings.finetune.epochs:
            with record.timed("finetune"):
                pruned, by, undone = finetuned(
                    run, pruned, selection.decisions, folder, limit=selection.allowed
                )
            judged = by or judged
            if undone:
                record.notes.append(undone)
            else:
                record.stage("finetuned", pruned)
    with record.timed("measure"):
        times = LatencyPlan(batches=settings.latency_batches, seconds=settings.latency_seconds)
        latency = context.latency(pruned, times)
    _last_notes(run, record, checkpointed=passed_over() > checkpointed)
    if is_transformers_model(pruned):
        record.note(Code.FORMAT, opened_by(pruned))
    result = record.result(
        before=(*more_lost(judged, record.lost()), *notes_on(judged)),
        method=plan.method,
        units=plan.units,
        judged=judged,
        latency=latency,
        search=tuple(probe.as_json() for probe in selection.probes or ()),
    )
    statistics = profile.tensors if profile else {}
    return Outcome(pruned.cpu().eval(), plan, result, statistics, example=context.example)


def _begun(run: Pruning) -> Record:
    """The figures of the unpruned model, if what it loses means anything."""
    context, force = run.context, run.settings.force
    score = context.evaluate(context.model, "base")
    notes = check_base(score, force=force) + check_calibration(context.data.calibration, force=force)
    record = Record(context, base=score)
    record.notes += notes
    if context.widened:
        record.note(Code.WIDENED, context.widened)
    fresh = fresh_parameters(context.model)
    if fresh:
        missing = f"untrained, since the checkpoint had none that fit: {', '.join(fresh)}"
        record.note(Code.UNTRAINED, missing)
    return record


def _statistics(run: Pruning, folder: RunFolder | None) -> Profile:
    """What the method needs to see; those of an earlier run are not gathered again."""
    context, settings = run.context, run.settings
    own = folder.path / "profile" if folder else None
    of: dict[str, Any] = {
        "model": context.fingerprint,
        "data": run.statistics_from,
        "groups": {g.name: g.size for g in context.units.groups},
    }
    known: dict[str, dict[str, Tensor]] = {}
    if settings.profile:
        known = load_profile(Path(settings.profile), **of)
    elif own and (own / "profile.json").is_file():
        known = load_profile(own, **of)
    needs = statistics_for(run.method, run.options, settings.allocation)
    profile = context.statistics(needs, known=known, where=settings.profile or "this run")
    if own:
        with dispensable("the profile"):
            save_profile(own, profile.tensors, **of)
    return profile


def _select(run: Pruning, record: Record, profile: Profile, folder: RunFolder | None) -> Selection:
    """From statistics to decisions."""
    context, settings = run.context, run.settings
    choices = run.method.choose(profile, run.options, settings.seed)
    record.notes += few_rows(choices, len(context.learning))
    choosing = Choosing(context, choices, profile, settings.allocation, settings.round_to)
    if not (run.searched or settings.budget.searched):
        return Selection(decisions=choosing.decide(settings.budget))
    # Milliseconds are never measured the same twice, and probes take long: what was found is kept.
    found = folder.find("search", Selection) if folder else None
    if found is None:
        found = Objective(run, choosing).search()
        if folder:
            folder.store("search", found)
    return found


def _recover(
    run: Pruning, record: Record, pruned: nn.Module, selection: Selection, folder: RunFolder | None
) -> None:
    """Bring accuracy back without labels, in place."""
    with record.timed("recover"):
        did = run.context.recover(pruned, selection.decisions, run.settings.recovery)
    record.notes += did.notes
    if folder and did.together is not None:
        folder.log("reconstruction", **asdict(did.together))
    if did.ran:
        check_same(pruned, weights_fingerprint, what="result of the recovery")
        record.stage("recovered", pruned)


def _plan(run: Pruning, selection: Selection, folder: RunFolder | None) -> Plan:
    """The decisions as they are written; the same in every process."""
    context, settings = run.context, run.settings
    fields = {"allocation", "schedule", "recovery", "skip", "only", "units", "round_to"}
    fields |= {"between"} if settings.schedule == "layerwise" else set()
    fields |= {"finetune"} if settings.finetune.epochs else set()
    fields |= {"uniform"} if settings.uniform else set()
    fields |= {"effort"} if settings.effort != 1 else set()
    general = settings.model_dump(mode="json", include=fields)
    general |= context.task.settings
    kinds = {g.name: g.kind for g in context.units.groups}
    data = context.data
    plan = Plan(
        method=run.method.name,
        settings={**run.options.model_dump(mode="json"), **general},
        budget=settings.budget.words,
        seed=settings.seed,
        model=context.fingerprint,
        data={"name": data.name, "fingerprint": data.fingerprint, "statistics": run.statistics_from},
        groups=tuple(d.model_copy(update={"kind": kinds[d.name]}) for d in selection.decisions),
        skipped=context.units.skipped,
        joint=run.method.joint,
    )
    check_same(plan, lambda plan: repr([(g.name, g.kept) for g in plan.groups]), what="choice of units")
    if folder:
        plan.save(folder.path / "plan.json")
        folder.log("plan", kept=plan.units["kept"], total=plan.units["total"])
    return plan


def _last_notes(run: Pruning, record: Record, *, checkpointed: bool) -> None:
    """What only the end of a run shows: a user's loader, a missed budget, gradient checkpointing."""
    train, budget = run.context.data.train, run.settings.budget
    base, pruned = record.stages[:2]
    for note in train.notes if isinstance(train, LoaderSource) else ():
        record.note(Code.DATA, note)
    for quantity, target in budget.shares.items():
        reached = getattr(pruned, quantity) / getattr(base, quantity)
        # Whole units may miss it.
        if abs(reached - target) > 0.02 * target:
            missed = f"keep_{quantity}={target:g} was asked for; whole units come to {reached:.3f}"
            record.note(Code.BUDGET, missed)
    if checkpointed:
        record.note(
            Code.OTHER,
            "gradient checkpointing was off while the model was pruned and trained, which changes no figure "
            "but takes more memory; in the model handed back it is as it was",
        )
