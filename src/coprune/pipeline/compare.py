"""Methods × budgets × seeds, everything else equal.

Every method gets the same calibration samples, the same recovery and the same fine-tuning on the
same batches in the same order.

Every row is written when it is done; ``--resume`` continues behind the last one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import nn

from coprune.budget.counts import Budget, OutOfReachError, check_reachable
from coprune.budget.decide import Choices, decide, kept_ratio
from coprune.budget.validation import Measured
from coprune.data import DataSet
from coprune.distributed.collectives import on_first
from coprune.errors import UserError
from coprune.files import read_document, write_json
from coprune.measure import NotFiniteError, count_macs, count_params, evaluate
from coprune.methods.base import Method
from coprune.models.canonicalize import canonicalize
from coprune.models.copies import copied
from coprune.pipeline.compare_job import (
    KNEE,
    CompareJob,
    check_job,
    common_kinds,
    offered_kinds,
    trained_as_suits,
)
from coprune.pipeline.comparison import BaseFigures, Comparison, Row
from coprune.pipeline.context import Prepared, check_trainings, gather_for, measured_for, prepare, recover
from coprune.pipeline.environment import pick_device, set_up, versions
from coprune.pipeline.jobs import open_both
from coprune.pipeline.sanity import check_base, check_calibration
from coprune.plan import GroupDecision
from coprune.progress import track
from coprune.recovery import kept_outputs
from coprune.report import write_compare
from coprune.store.run_folder import RunFolder, check_out, claim
from coprune.surgery import cut
from coprune.training import DivergedError, fit


@dataclass(frozen=True)
class _LeftOut:
    """A method that cannot keep a budget on this network, and why; the others are compared without it."""

    method: str
    why: str


def run_compare(job: CompareJob, *, out: Path, resume: bool = False, overwrite: bool = False) -> Comparison:
    """Compare and write ``compare.json`` and ``compare.html``.

    Args:
        job: what to compare.
        out: the folder.
        resume: continue an interrupted comparison.
        overwrite: replace an earlier one.

    Returns:
        The comparison.
    """
    check_out(out, job, resume=resume, overwrite=overwrite)
    methods = check_job(job)
    device = pick_device(job.device)
    set_up(threads=job.threads, seed=0)
    model, data = _open(job, seed=0)
    job = trained_as_suits(job, model)
    kinds = common_kinds(job, methods)
    prepared = prepare(
        model, data, skip=job.skip, only=job.only, kinds=kinds, offered=offered_kinds(job, methods)
    )
    # Before hours have gone into the budgets that are within reach.
    for share in (float(budget) for budget in job.budgets if budget != KNEE and job.budget_of == "macs"):
        with prepared.within_reach():
            check_reachable(prepared.cost, share, quantity="macs", round_to=job.round_to)
    if job.finetune.epochs:
        check_trainings(model, data, prepared.example, [job.finetune], device=device)
    folder = claim(out, job={"compare": job.model_dump(mode="json")}, resume=resume, overwrite=overwrite)
    if folder.finished:
        return Comparison.load(out / "compare.json")
    with folder:
        score = evaluate(model, data.heldout, device=device, label="accuracy, base")
        model.cpu()
        seen = check_calibration(data.calibration, force=job.force)
        notes = [*data.notes, *check_base(score, force=job.force), *seen]
        base = BaseFigures(
            value=score.top1,
            macs=count_macs(model, prepared.example),
            params=count_params(model),
            samples=score.samples,
            constant=score.constant,
        )
        rows: list[Row] = []
        left_out: dict[_LeftOut, None] = {}
        total = job.seeds * len(job.budgets) * len(methods) * len(job.recoveries)
        for row in track(
            _rows(job, methods, model, prepared, folder, base=base, device=device), label="rows", total=total
        ):
            if isinstance(row, Row):
                rows.append(row)
            else:
                left_out[row] = None
        if not rows:
            raise UserError(next(iter(left_out)).why)
        comparison = Comparison(
            schema=1,
            base=base,
            rows=tuple(rows),
            notes=tuple(str(note) for note in notes),
            left_out=tuple(f"{one.method} is left out: {one.why}" for one in left_out),
            job=job.model_dump(mode="json"),
            versions=versions(),
        )
        on_first(lambda: _save(comparison, folder.path))
        folder.close()
    return comparison


def _save(comparison: Comparison, out: Path) -> None:
    comparison.save(out / "compare.json")
    write_compare(out)


def _open(job: CompareJob, *, seed: int) -> tuple[nn.Module, DataSet]:
    model, data = open_both(
        job.model,
        job.data,
        weights=job.weights,
        arguments=job.arguments,
        calibration=job.calibration,
        seed=seed,
        trust=job.trust,
        tokenizer=job.tokenizer,
        validation=job.validation,
    )
    return canonicalize(model), data


def _rows(
    job: CompareJob,
    methods: Mapping[str, tuple[Method, BaseModel]],
    model: nn.Module,
    prepared: Prepared,
    folder: RunFolder,
    *,
    base: BaseFigures,
    device: str,
) -> Iterator[Row | _LeftOut]:
    rates: dict[tuple[float | str, str, str], tuple[float, ...]] = {}
    for seed in range(job.seed, job.seed + job.seeds):
        places = {
            (budget, name, recovery): folder.work / "rows" / f"{seed}-{budget}-{name}-{recovery}.json"
            for budget in job.budgets
            for name in methods
            for recovery in job.recoveries
        }
        done = on_first(lambda places=places: _done(places))  # type: ignore[misc]
        if len(done) < len(places):
            _, data = _open(job, seed=seed)
            statistics = [s for method, options in methods.values() for s in method.needs(options)]
            profile = gather_for(
                model, prepared, data.calibration, statistics, classes=data.classes, device=device
            )
            model.cpu()
            choices = {
                name: method.choose(profile, options, seed) for name, (method, options) in methods.items()
            }
            measured = {
                name: measured_for(
                    model,
                    choices[name],
                    data.calibration,
                    prepared.example,
                    allocation=_allocation(job, method),
                    seed=seed,
                    device=device,
                )
                for name, (method, _) in methods.items()
            }
            knee_macs = _knee_macs(methods, choices, prepared, job.round_to)
        cut_values: dict[tuple[float | str, str], float] = {}
        decided: dict[tuple[float | str, str], tuple[GroupDecision, ...]] = {}
        for (budget, name, recovery), place in places.items():
            if (budget, name, recovery) not in done:
                started = time.monotonic()
                try:
                    if (budget, name) not in decided:
                        decided[budget, name] = _decisions(
                            budget, methods[name][0], choices[name], prepared, job, knee_macs, measured[name]
                        )
                except OutOfReachError as cause:
                    yield _LeftOut(name, f"{cause}{prepared.more}")
                    continue
                decisions = decided[budget, name]
                pruned = cut(model, decisions, prepared.example)
                if (budget, name) not in cut_values:
                    # The same for every recovery.
                    cut_values[budget, name] = evaluate(
                        pruned, data.heldout, device=device, label="accuracy, pruned"
                    ).top1
                figures = _stages(
                    pruned,
                    model,
                    decisions,
                    data,
                    job,
                    recovery=recovery,
                    rates=rates.get((budget, name, recovery), job.finetune_rates),
                    seed=seed,
                    device=device,
                )
                row = Row(
                    method=name,
                    budget=budget,
                    seed=seed,
                    macs_ratio=count_macs(pruned.cpu(), prepared.example) / base.macs,
                    recovery=recovery,
                    pruned=cut_values[budget, name],
                    kept=sum(len(d.kept) for d in decisions),
                    seconds=round(time.monotonic() - started, 1),
                    **figures,
                )
                write_json(place, {"schema": 1, "row": row.model_dump(mode="json")})
                folder.keep()
                done[budget, name, recovery] = row
            row = done[budget, name, recovery]
            if row.rate is not None:
                rates.setdefault((budget, name, recovery), (row.rate,))
            yield row


def _done(places: Mapping[tuple[float | str, str, str], Path]) -> dict[tuple[float | str, str, str], Row]:
    """Rows of an interrupted comparison, by budget, method and recovery."""
    return {
        key: read_document(place, _Stored, what="row", schema=1).row
        for key, place in places.items()
        if place.is_file()
    }


def _knee_macs(
    methods: Mapping[str, tuple[Method, BaseModel]],
    choices: Mapping[str, Choices],
    prepared: Prepared,
    round_to: int,
) -> float | None:
    """MACs that the first method with a knee keeps at it."""
    for name, (method, _) in methods.items():
        if method.has_knee:
            decisions = decide(Budget(), prepared.cost, choices[name], round_to=round_to)
            return kept_ratio(prepared.cost, decisions)
    return None


def _decisions(
    budget: float | str,
    method: Method,
    choices: Choices,
    prepared: Prepared,
    job: CompareJob,
    knee_macs: float | None,
    measured: Measured | None,
) -> tuple[GroupDecision, ...]:
    if budget == KNEE and method.has_knee:
        return decide(Budget(), prepared.cost, choices, round_to=job.round_to)
    share = knee_macs if budget == KNEE else float(budget)
    heads = job.budget_of == "heads" and budget != KNEE
    asked = Budget(keep_heads=share) if heads else Budget(keep_macs=share)
    return decide(
        asked,
        prepared.cost,
        choices,
        allocation=_allocation(job, method),
        measured=measured,
        round_to=job.round_to,
    )


def _allocation(job: CompareJob, method: Method) -> str:
    return method.allocation if job.allocation == "auto" else job.allocation


def _stages(
    pruned: nn.Module,
    teacher: nn.Module,
    decisions: Sequence[GroupDecision],
    data: DataSet,
    job: CompareJob,
    *,
    recovery: str,
    rates: Sequence[float],
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Held-out accuracy after recovery and after training, and notes; in place."""
    found: dict[str, Any] = {"recovered": None, "finetuned": None, "rate": None}
    did = recover(pruned, teacher, decisions, data.calibration, how=recovery, seed=seed, device=device)
    notes = [str(note) for note in did.notes]
    if did.ran:
        found["recovered"] = evaluate(pruned, data.heldout, device=device, label="accuracy, recovered").top1
    if job.finetune.epochs:
        tried = rates or (job.finetune.lr,)
        trained, rate = _trained(pruned, teacher, decisions, data, job, rates=tried, seed=seed, device=device)
        try:
            if trained is not None:
                heldout = evaluate(trained, data.heldout, device=device, label="accuracy, fine-tuned")
                found |= {"finetuned": heldout.top1, "rate": rate}
        except NotFiniteError:
            trained = None
        if trained is None:
            said = ", ".join(f"{rate:g}" for rate in tried)
            notes.append(f"fine-tuning diverged at every learning rate tried ({said})")
    return {**found, "notes": tuple(notes)}


def _trained(
    pruned: nn.Module,
    teacher: nn.Module,
    decisions: Sequence[GroupDecision],
    data: DataSet,
    job: CompareJob,
    *,
    rates: Sequence[float],
    seed: int,
    device: str,
) -> tuple[nn.Module | None, float | None]:
    """The model after training with each rate, the best on validation or calibration data, and its rate.

    A rate with which training diverges is worse than any other; (None, None) when all of them do.
    """
    best: tuple[float, nn.Module, float] | None = None
    for rate in rates:
        trained = copied(pruned)
        try:
            fit(
                trained,
                data.train,
                job.finetune.model_copy(update={"lr": rate}),
                seed=seed,
                teacher=copied(teacher) if job.finetune.taught else None,
                kept=kept_outputs(teacher, decisions),
                device=device,
                label=f"fine-tuning, lr {rate:g}",
            )
            # With one rate there is nothing to choose, and nothing to measure for it.
            value = 0.0
            if len(rates) > 1:
                value = evaluate(trained, data.judging, device=device, label="calibration").top1
        except (DivergedError, NotFiniteError):
            continue
        if best is None or value > best[0]:
            best = (value, trained, rate)
    return (best[1], best[2]) if best else (None, None)


class _Stored(BaseModel):
    row: Row
