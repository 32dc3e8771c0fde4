"""``coprune prune``: model + data → a physically smaller model with its plan and its figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor, nn

from coprune.budget.decide import decide
from coprune.budget.objective import Trials, is_judged, why_nothing
from coprune.budget.search_cache import Searched, searched_once
from coprune.budget.validation import Measured
from coprune.compat.checkpointing import passed_over
from coprune.data import DataSet, LoaderSource
from coprune.distributed.collectives import check_same, on_first
from coprune.distributed.world import world
from coprune.files import dispensable
from coprune.measure import LatencyPlan, Score, evaluate, measure_latency, measure_stage
from coprune.methods.base import Method
from coprune.methods.registry import find_method, method_settings
from coprune.models.canonicalize import canonical_copy, restore_format
from coprune.models.hf import fresh_parameters
from coprune.pipeline.context import (
    Prepared,
    check_trainings,
    gather_few,
    gather_for,
    measured_for,
    prepare,
    recover,
)
from coprune.pipeline.environment import pick_device, set_up, versions
from coprune.pipeline.finetune import finetuned
from coprune.pipeline.judging import more_lost, notes_on, parts_for
from coprune.pipeline.layerwise import prune_layer_by_layer
from coprune.pipeline.outcome import Outcome
from coprune.pipeline.sanity import check_base, check_calibration
from coprune.pipeline.settings import (
    PruneSettings,
    check_settings,
    kinds_of,
    resolved,
    trained_as_suits,
    trainings,
)
from coprune.plan import Plan
from coprune.recovery import Recovered
from coprune.result import Code, Note, Result, Stage, StageName
from coprune.statistics import Profile
from coprune.store.model import check_finite, weights_fingerprint
from coprune.store.profile import check_profile, load_profile, save_profile
from coprune.store.run_folder import RunFolder
from coprune.surgery import cut


class Stopwatch:
    """Seconds of each named step, for ``result.json``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {
            "profile": 0.0, "select": 0.0, "surgery": 0.0, "recover": 0.0, "finetune": 0.0
        }  # fmt: skip

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - started


def prepare_for(model: nn.Module, data: DataSet, settings: PruneSettings, method: Method) -> Prepared:
    """What can be removed with these settings; see :func:`coprune.pipeline.context.prepare`."""
    kinds = kinds_of(settings, method)
    offered = kinds if settings.budget.keep_heads is not None else method.units
    return prepare(model, data, skip=settings.skip, only=settings.only, kinds=kinds, offered=offered)


def prune_model(
    model: nn.Module,
    data: DataSet,
    settings: PruneSettings,
    *,
    folder: RunFolder | None = None,
    prepared: Prepared | None = None,
) -> Outcome:
    """Select, cut, recover, train and measure.

    Several processes share out the passes over data and do all else alike; that they hold the same plan
    and the same weights is checked.

    Args:
        model: the trained network; left as it is.
        data: in three parts; decisions use the calibration part only.
        settings: what to do.
        folder: where unfinished state is kept, so that an interrupted run can go on.
        prepared: the model, looked at with these settings before; None: it is looked at now.

    Raises:
        UserError: anything about model, data or settings that the user can mend.
    """
    device = pick_device(settings.device)
    set_up(threads=settings.threads, seed=settings.seed)
    method = find_method(settings.method)
    options = method_settings(method, settings.options)
    check_settings(settings, method)
    settings = resolved(settings, method)
    watch, passed = Stopwatch(), passed_over()
    check_finite(model.state_dict(), model=model, where=f"this {type(model).__name__}")
    model = canonical_copy(model)
    settings = trained_as_suits(settings, model)
    prepared = prepared or prepare_for(model, data, settings, method)
    check_trainings(model, data, prepared.example, trainings(settings), device=device)
    fingerprint = weights_fingerprint(model)
    searched = is_judged(settings, method)
    statistics_part, judging = parts_for(data, settings, searched=searched)

    def staged(name: StageName, net: nn.Module, score: Score | None = None) -> Stage:
        with watch.measure("measure"):
            return measure_stage(name, net, data, prepared.example, device=device, score=score)

    score = evaluate(model, data.heldout, device=device, label="accuracy, base")
    notes = [Note(Code.DATA, said) for said in data.notes]
    notes += check_base(score, force=settings.force)
    notes += check_calibration(data.calibration, force=settings.force)
    base = staged("base", model, score)
    stages, found, judged = [base], None, None
    fresh = fresh_parameters(model)
    if fresh:
        said = f"untrained, since the checkpoint had none that fit: {', '.join(fresh)}"
        notes.append(Note(Code.UNTRAINED, said))
    # A search judges on samples that its statistics never saw, so those are other statistics than
    # the ones of all calibration samples, and neither may be reused for the other.
    halved = statistics_part is not data.calibration
    seen = f"{data.fingerprint}-half{settings.seed}" if halved else data.fingerprint
    sizes = {g.name: g.size for g in prepared.units.groups}
    known = _known_statistics(settings, folder, model=fingerprint, data=seen, groups=sizes)
    profile: Profile | None = None
    joint = False

    if settings.schedule == "layerwise":
        with watch.measure("select"), prepared.within_reach():
            decisions, pruned = prune_layer_by_layer(
                model, data, prepared, method, options, settings, folder=folder, device=device
            )
    else:
        with watch.measure("profile"):
            if known:
                due = gather_few(
                    model,
                    prepared,
                    statistics_part,
                    [s for s in method.needs(options) if s.key in known],
                    classes=data.classes,
                    device=device,
                )
                check_profile(known, due, where=settings.profile or "this run")
            profile = gather_for(
                model,
                prepared,
                statistics_part,
                method.needs(options),
                classes=data.classes,
                device=device,
                known=known,
            )
            if folder:
                own = folder.path / "profile"
                with dispensable("the profile"):
                    save_profile(own, profile.tensors, model=fingerprint, data=seen, groups=sizes)
        with watch.measure("select"), prepared.within_reach():
            choices = method.choose(profile, options, settings.seed)
            joint = not isinstance(choices, Sequence)
            # A share of every group's units needs no curves to be shared out by.
            allocation = "uniform" if settings.budget.keep_units is not None else settings.allocation

            def measured() -> Measured | None:
                return measured_for(
                    model,
                    choices,
                    statistics_part,
                    prepared.example,
                    allocation=allocation,
                    seed=settings.seed,
                    device=device,
                )

            def search() -> Searched:
                return Trials(
                    model, prepared, choices, settings, measured(), statistics_part, judging, device
                ).run()

            if searched or settings.budget.searched:
                kept_in = folder.work / "search.json" if folder else None
                decisions, found, more = searched_once(kept_in, search)
                notes.extend(more)
                if found:
                    judged = judging.judged_search(found, settings.budget.max_drop)
            else:
                decisions = decide(
                    settings.budget,
                    prepared.cost,
                    choices,
                    allocation=allocation,
                    measured=measured(),
                    round_to=settings.round_to,
                )
        with watch.measure("surgery"):
            pruned = cut(model, decisions, prepared.example)
    kinds = {g.name: g.kind for g in prepared.units.groups}
    plan = Plan(
        schema=1,
        method=method.name,
        settings=_plan_settings(settings, options),
        budget=settings.budget.words,
        seed=settings.seed,
        model=fingerprint,
        data={"name": data.name, "fingerprint": data.fingerprint, "statistics": seen},
        groups=tuple(d.model_copy(update={"kind": kinds[d.name]}) for d in decisions),
        skipped=prepared.units.skipped,
        joint=joint,
    )
    check_same(plan, lambda plan: repr([(g.name, g.kept) for g in plan.groups]), what="choice of units")
    if folder:
        plan.save(folder.path / "plan.json")
        folder.log("plan", kept=plan.units["kept"], total=plan.units["total"])
    stages.append(staged("pruned", pruned))
    touched = stages[-1].macs < base.macs
    if not touched:
        why = why_nothing(settings, found, judging)
        notes.append(Note(Code.NOTHING_REMOVED, f"nothing was removed: {why}"))

    did = Recovered(False)
    if touched:
        with watch.measure("recover"):
            did = recover(
                pruned,
                model,
                decisions,
                statistics_part,
                how=settings.recovery,
                seed=settings.seed,
                device=device,
            )
    notes.extend(did.notes)
    if folder and did.together is not None:
        folder.log("reconstruction", **asdict(did.together))
    if did.ran:
        check_same(pruned, weights_fingerprint, what="result of the recovery")
        stages.append(staged("recovered", pruned))
    if settings.finetune.epochs and touched:
        with watch.measure("finetune"):
            trained = finetuned(
                pruned, model, decisions, data, settings, judging, folder=folder, device=device
            )
        pruned, judged = trained.model, trained.judged or judged
        notes.extend(trained.notes)
        if trained.kept:
            stages.append(staged("finetuned", pruned))
    with watch.measure("measure"):
        times = LatencyPlan(batches=settings.latency_batches, seconds=settings.latency_seconds)
        restore_format(model)
        restore_format(pruned)
        # The other processes keep still.
        latency = on_first(lambda: measure_latency(model, pruned, prepared.example, times, device=device))
    if isinstance(data.train, LoaderSource):
        notes.extend(Note(Code.DATA, said) for said in data.train.notes)
    notes.extend(_budget_notes(settings, stages))
    if passed_over() > passed:
        said = (
            "gradient checkpointing was off while the model was pruned and trained, which changes no figure "
            "but takes more memory; in the model handed back it is as it was"
        )
        notes.append(Note(Code.OTHER, said))
    notes = [*more_lost(judged, 100 * (base.value - stages[-1].value)), *notes_on(judged), *notes]
    result = Result(
        method=method.name,
        seed=settings.seed,
        units=plan.units,
        stages=tuple(stages),
        judged=judged,
        calibration=len(data.calibration),
        latency=latency,
        seconds={k: round(v, 3) for k, v in watch.seconds.items()},
        versions=versions(),
        processes=world(),
        search=tuple(p.as_json() for p in found.probes) if found else (),
        notes=tuple(notes),
    )
    return Outcome(
        pruned.cpu().eval(), plan, result, profile.tensors if profile else {}, example=prepared.example
    )


def _known_statistics(
    settings: PruneSettings,
    folder: RunFolder | None,
    *,
    model: str,
    data: str,
    groups: Mapping[str, int],
) -> dict[str, dict[str, Tensor]]:
    if settings.profile:
        return load_profile(Path(settings.profile), model=model, data=data, groups=groups)
    own = folder.path / "profile" if folder else None
    if own and (own / "profile.json").is_file():
        return load_profile(own, model=model, data=data, groups=groups)
    return {}


def _plan_settings(settings: PruneSettings, options: BaseModel) -> dict[str, Any]:
    general = settings.model_dump(
        mode="json", include={"allocation", "schedule", "recovery", "skip", "only", "units", "round_to"}
    )
    if settings.schedule == "layerwise":
        general["between"] = settings.between.model_dump(mode="json")
    if settings.finetune.epochs:
        general["finetune"] = settings.finetune.model_dump(mode="json")
    return {**options.model_dump(mode="json"), **general}


def _budget_notes(settings: PruneSettings, stages: list[Stage]) -> list[Note]:
    """A budget that could not be met within 2 % is said, not hidden."""
    budget, base, pruned = settings.budget, stages[0], stages[1]
    for name, target, reached in (
        ("keep_macs", budget.keep_macs, pruned.macs / base.macs),
        ("keep_params", budget.keep_params, pruned.params / base.params),
    ):
        if target is not None and abs(reached - target) > 0.02 * target:
            said = f"{name}={target:g} was asked for; whole units come to {reached:.3f}"
            return [Note(Code.BUDGET, said)]
    return []
