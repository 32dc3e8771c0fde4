"""``coprune prune``: model + data → a physically smaller model with its plan and its figures."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor, nn

from coprune.data import DataSet, Source, split_source
from coprune.errors import UserError
from coprune.measure import LatencyPlan, correctness, measure_latency, measure_stage, median_ms
from coprune.methods import find_method, method_settings
from coprune.plan import GroupDecision, Plan
from coprune.profile import Profile
from coprune.result import Result, Stage
from coprune.run.environment import pick_device, set_up, versions
from coprune.run.folder import RunFolder
from coprune.run.layerwise import prune_layer_by_layer
from coprune.run.outcome import Outcome
from coprune.run.search import Found, paired_drop, search_drop, search_knee, search_latency
from coprune.run.settings import PruneSettings, check_settings, resolved
from coprune.run.steps import Prepared, counts, curves_for, decide, gather_for, prepare, recover
from coprune.select import Budget, GroupChoice, Method
from coprune.store.model import weights_fingerprint
from coprune.store.profile import load_profile, save_profile
from coprune.surgery import cut
from coprune.training import Checkpoint, fit


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


def prune_model(
    model: nn.Module, data: DataSet, settings: PruneSettings, *, folder: RunFolder | None = None
) -> Outcome:
    """Select, cut, recover, train and measure.

    Args:
        model: the trained network; left as it is.
        data: in three parts; decisions use the calibration part only.
        settings: what to do.
        folder: where unfinished state is kept, so that an interrupted run can go on.

    Raises:
        UserError: anything about model, data or settings that the user can mend.
    """
    device = pick_device(settings.device)
    set_up(threads=settings.threads, seed=settings.seed)
    method = find_method(settings.method)
    options = method_settings(method, settings.options)
    check_settings(settings, method)
    settings = resolved(settings, method)
    watch = Stopwatch()
    model = copy.deepcopy(model).cpu().eval()
    prepared = prepare(model, data, skip=settings.skip)
    fingerprint = weights_fingerprint(model)
    judged = _judged(settings, method)
    statistics_part, judging_part = _calibration(data, settings, judged=judged)
    base = measure_stage("base", model, data, prepared.example, device=device)
    stages, notes, found = [base], [], None
    # A search judges on samples that its statistics never saw, so those are other statistics than
    # the ones of all calibration samples, and neither may be reused for the other.
    seen = f"{data.fingerprint}-half{settings.seed}" if judged else data.fingerprint
    known = _known_statistics(settings, folder, model=fingerprint, data=seen)
    profile: Profile | None = None

    if settings.schedule == "layerwise":
        with watch.measure("select"):
            decisions, pruned = prune_layer_by_layer(
                model, data, prepared, method, options, settings, folder=folder, device=device
            )
    else:
        with watch.measure("profile"):
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
                save_profile(folder.path / "profile", profile.tensors, model=fingerprint, data=seen)
        with watch.measure("select"):
            choices = method.choose(profile, options, settings.seed)
            curves = curves_for(
                model, choices, statistics_part, allocation=settings.allocation, device=device
            )
            if judged or settings.budget.searched:
                search = _Search(
                    model, prepared, choices, settings, curves, statistics_part, judging_part, device
                )
                decisions, found, said = search.run()
                notes.extend(said)
            else:
                wanted, why = counts(
                    settings.budget, prepared.cost, choices, allocation=settings.allocation, curves=curves
                )
                decisions = decide(choices, wanted, why=why)
        with watch.measure("surgery"):
            pruned = cut(model, decisions, prepared.example)
    plan = Plan(
        schema=1,
        method=method.name,
        settings=_plan_settings(settings, options),
        budget=settings.budget.words,
        seed=settings.seed,
        model=fingerprint,
        data={"name": data.name, "fingerprint": data.fingerprint, "statistics": seen},
        groups=decisions,
        skipped=prepared.units.skipped,
    )
    if folder:
        plan.save(folder.path / "plan.json")
        folder.log("plan", kept=plan.units["kept"], total=plan.units["total"])
    stages.append(measure_stage("pruned", pruned, data, prepared.example, device=device))
    touched = stages[-1].macs < base.macs
    if not touched:
        notes.append("nothing was removed: " + _why_nothing(settings, found))

    with watch.measure("recover"):
        if touched and recover(
            pruned,
            model,
            decisions,
            statistics_part,
            how=settings.recovery,
            seed=settings.seed,
            device=device,
        ):
            stages.append(measure_stage("recovered", pruned, data, prepared.example, device=device))
    if settings.finetune.epochs and touched:
        before = copy.deepcopy(pruned)
        with watch.measure("finetune"):
            fit(
                pruned,
                data.train,
                settings.finetune,
                seed=settings.seed,
                teacher=model if settings.finetune.distill else None,
                checkpoint=Checkpoint(folder.work / "finetune.safetensors") if folder else None,
                device=device,
                label="fine-tuning",
            )
        limit = settings.budget.max_drop
        if limit is not None and _lost(model, pruned, judging_part, device) > limit:
            notes.append(
                f"fine-tuning lost more than {limit:g} points on calibration data; "
                "the model before it is handed back"
            )
            pruned = before
        else:
            stages.append(measure_stage("finetuned", pruned, data, prepared.example, device=device))
    with watch.measure("measure"):
        latency = measure_latency(
            model,
            pruned,
            prepared.example,
            LatencyPlan(batches=settings.latency_batches, seconds=settings.latency_seconds),
            device=device,
        )
    notes.extend(_budget_notes(settings, stages))
    result = Result(
        schema=1,
        method=method.name,
        seed=settings.seed,
        units=plan.units,
        stages=tuple(stages),
        latency=latency,
        seconds={k: round(v, 3) for k, v in watch.seconds.items()},
        versions=versions(),
        search=tuple(p.as_json() for p in found.probes) if found else (),
        notes=tuple(notes),
    )
    return Outcome(pruned.cpu().eval(), plan, result, profile.tensors if profile else {})


SOLVED_ON = 1000
"""Calibration samples that selection and recovery get in a search; the others judge. More samples
hardly make them better, while every judge makes the search surer."""


def _judged(settings: PruneSettings, method: Method) -> bool:
    """Whether recovered models are judged on samples of their own to find the size."""
    own_curve = settings.budget.empty and method.knee_of_curve and settings.schedule == "oneshot"
    return settings.budget.max_drop is not None or own_curve


def _calibration(data: DataSet, settings: PruneSettings, *, judged: bool) -> tuple[Source, Source]:
    """Samples for statistics and recovery, and samples to judge a search on; disjoint in a search."""
    if not judged:
        return data.calibration, data.calibration
    share = min(0.5, SOLVED_ON / len(data.calibration))
    statistics, judging = split_source(data.calibration, (share, 1 - share), seed=settings.seed)
    return statistics, judging


def _known_statistics(
    settings: PruneSettings, folder: RunFolder | None, *, model: str, data: str
) -> dict[str, dict[str, Tensor]]:
    if settings.profile:
        return load_profile(Path(settings.profile), model=model, data=data)
    own = folder.path / "profile" if folder else None
    if own and (own / "profile.json").is_file():
        return load_profile(own, model=model, data=data)
    return {}


@dataclass(frozen=True)
class _Search:
    """Everything that a search needs to try a model."""

    model: nn.Module
    prepared: Prepared
    choices: Sequence[GroupChoice]
    settings: PruneSettings
    curves: Mapping[str, Tensor] | None
    statistics: Source
    judging: Source
    device: str

    def run(self) -> tuple[tuple[GroupDecision, ...], Found | None, list[str]]:
        """Decisions, the probes of a search that judges accuracy, and notes."""
        budget, cost = self.settings.budget, self.prepared.cost
        least = cost.ratio(dict.fromkeys(cost.sizes, 1))
        if budget.latency_ms is not None:
            decisions, ms, smallest = search_latency(
                least, budget.latency_ms, decide=self.at, time_ms=self.time_ms
            )
            if ms > budget.latency_ms:
                raise UserError(
                    f"latency_ms={budget.latency_ms:g} cannot be reached: one unit in every group still "
                    f"takes {smallest:.3g} ms here; ask for at least that much"
                )
            return decisions, None, [f"{ms:.3g} ms a sample when it was chosen"]
        base = correctness(self.model, self.judging, device=self.device, label="accuracy, calibration")
        self.model.cpu()
        if budget.max_drop is not None:
            found = search_drop(least, base, budget.max_drop, decide=self.at, judge=self.judge)
            return found.decisions, found, []
        found, rule = search_knee(least, base, decide=self.at, judge=self.judge)
        return found.decisions, found, [f"the knee of recovered accuracy over MACs: {rule}"]

    def at(self, share: float) -> tuple[float, tuple[GroupDecision, ...]]:
        """The decisions for a share of the MACs."""
        wanted, _ = counts(
            Budget(keep_macs=min(1.0, share)),
            self.prepared.cost,
            self.choices,
            allocation=self.settings.allocation,
            curves=self.curves,
        )
        budget = self.settings.budget
        why = "the knee of the recovered curve" if budget.empty else f"{budget.words} allows it"
        return self.prepared.cost.ratio(wanted), decide(self.choices, wanted, why=why)

    def time_ms(self, decisions: tuple[GroupDecision, ...]) -> float:
        """Milliseconds of one sample of the cut model."""
        example = self.prepared.example
        return median_ms(cut(self.model, decisions, example), example, device=self.device)

    def judge(self, decisions: tuple[GroupDecision, ...]) -> Tensor:
        """Which judging samples the cut and recovered model has right, ``[N]`` bool."""
        settings = self.settings
        candidate = cut(self.model, decisions, self.prepared.example)
        recover(
            candidate,
            self.model,
            decisions,
            self.statistics,
            how=settings.recovery,
            seed=settings.seed,
            device=self.device,
        )
        return correctness(candidate, self.judging, device=self.device, label="accuracy, probe")


def _lost(model: nn.Module, pruned: nn.Module, judging: Source, device: str) -> float:
    """Points lost on the judging samples against the unpruned model."""
    base = correctness(model, judging, device=device, label="accuracy, calibration")
    model.cpu()
    return paired_drop(base, correctness(pruned, judging, device=device))[0] - 1e-9


def _plan_settings(settings: PruneSettings, options: BaseModel) -> dict[str, Any]:
    general = settings.model_dump(mode="json", include={"allocation", "schedule", "recovery", "skip"})
    if settings.schedule == "layerwise":
        general["between"] = settings.between.model_dump(mode="json")
    if settings.finetune.epochs:
        general["finetune"] = settings.finetune.model_dump(mode="json")
    return {**options.model_dump(mode="json"), **general}


def _why_nothing(settings: PruneSettings, found: Found | None) -> str:
    if found is not None and settings.budget.max_drop is not None:
        return (
            f"no smaller model that was tried surely lost at most {settings.budget.max_drop:g} points; "
            "more --calibration samples make it surer"
        )
    return f"the budget ({settings.budget.words}) keeps every unit"


def _budget_notes(settings: PruneSettings, stages: list[Stage]) -> list[str]:
    """A MACs budget that could not be met within 2 % is said, not hidden."""
    target = settings.budget.keep_macs
    reached = stages[1].macs / stages[0].macs
    if target is not None and abs(reached - target) > 0.02 * target:
        return [f"keep_macs={target:g} was asked for; whole units come to {reached:.3f}"]
    return []
