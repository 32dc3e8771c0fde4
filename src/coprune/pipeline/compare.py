"""Methods × budgets × seeds, everything else equal.

Every method gets the same calibration samples, the same recovery and the same fine-tuning on the
same batches in the same order.

Every row is written when it is done; ``--resume`` continues behind the last one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import nn

from coprune.budget.cost import Quantity
from coprune.budget.counts import Budget, OutOfReachError, check_reachable
from coprune.budget.decide import kept_ratio
from coprune.comparison import BaseFigures, Comparison, Row
from coprune.distributed.collectives import on_first
from coprune.errors import UserError
from coprune.measure import NotFiniteError, count_macs
from coprune.methods.base import Method
from coprune.methods.registry import check_reads
from coprune.models.canonicalize import canonicalize
from coprune.models.copies import copied
from coprune.options import Options
from coprune.pipeline.checks import check_base, check_calibration, check_trainings, few_rows
from coprune.pipeline.compare_job import (
    KNEE,
    CompareJob,
    check_knee,
    common_kinds,
    methods_of,
    offered_kinds,
    trained_as_suits,
)
from coprune.pipeline.context import Context, figures_of
from coprune.pipeline.divergence import Choosing, statistics_for
from coprune.pipeline.environment import pick_device, set_up, versions
from coprune.pipeline.judging import judging_of
from coprune.pipeline.opening import open_both
from coprune.pipeline.removable import Scope
from coprune.pipeline.run import Steps, run
from coprune.pipeline.run_folder import RunFolder
from coprune.pipeline.which_task import can_train, task_for
from coprune.plan import GroupDecision
from coprune.progress import track
from coprune.report import write_compare
from coprune.training import DivergedError

Methods = Mapping[str, tuple[Method, Options]]
Cut = tuple[float | str, str, str]
"""Budget, method and allocation of a row."""

Key = tuple[float | str, str, str, str]
"""The same with its recovery."""


def run_compare(job: CompareJob, *, out: Path, resume: bool = False, overwrite: bool = False) -> Comparison:
    """Compare and write ``compare.json`` and ``compare.html``; see :func:`coprune.pipeline.run.run`."""
    run("compare", job, _steps(job), out=out, resume=resume, overwrite=overwrite)
    return on_first(lambda: Comparison.load(out / "compare.json"))


def _steps(job: CompareJob) -> Steps:
    device = pick_device(job.device)
    set_up(threads=job.threads, seed=0)
    model, data = open_both(job, seed=0)
    model = canonicalize(model)
    task = task_for(model, data, job.asked)
    methods, unable = able(methods_of(job), classes=data.classes is not None, loss=can_train(task, data))
    check_knee(job, methods)
    job = trained_as_suits(job, model)
    shares = [float(budget) for budget in job.budgets if budget != KNEE and job.budget_of == "macs"]
    budget: dict[Quantity, float] = {"macs": min(shares)} if shares else {}
    scope = Scope(common_kinds(job, methods), offered_kinds(job, methods), job, budget=budget)
    context = Context.of(model, data, scope, task=task, device=device, effort=job.effort)
    # Before hours have gone into the budgets that are within reach.
    for share in shares:
        with context.within_reach():
            check_reachable(context.cost, share, quantity="macs", round_to=job.round_to)
    check_trainings(model, data, context.task, [job.finetune], device=device)
    folder = yield job
    comparison = _compare(job, methods, unable, context, folder)

    def save() -> None:
        comparison.save(folder.path / "compare.json")
        write_compare(folder.path)

    on_first(save)


def able(methods: Methods, *, classes: bool, loss: bool) -> tuple[Methods, tuple[str, ...]]:
    """The methods that can run, and why those are left out that would read what is not there.

    Args:
        methods: with their settings.
        classes, loss: see :meth:`coprune.methods.base.Method.lacking`.

    Raises:
        UserError: none can.
    """
    lacks = {name: m.lacking(options, classes=classes, loss=loss) for name, (m, options) in methods.items()}
    if all(lacks.values()):
        check_reads(*next(iter(methods.values())), classes=classes, loss=loss)
    left_out = tuple(_left_out(name, lack.sentence) for name, lack in lacks.items() if lack)
    return {name: methods[name] for name, lack in lacks.items() if lack is None}, left_out


def _left_out(method: str, why: str) -> str:
    return f"{method} is left out: {why}"


def _compare(
    job: CompareJob, methods: Methods, unable: Sequence[str], context: Context, folder: RunFolder
) -> Comparison:
    score, data = context.evaluate(context.model, "base"), context.data
    notes = check_calibration(data.calibration, force=job.force)
    notes = check_base(score, force=job.force) + notes
    base = BaseFigures(constant=score.constant, **figures_of(context.model, score, context.example))
    total = job.seeds * len(_keys(job, methods))
    found = list(track(_rows(job, methods, context, base, folder), label="rows", total=total))
    rows = tuple(row for _, row in found if isinstance(row, Row))
    # A method may fall short of several budgets, and of each with every recovery.
    out_of_reach = dict.fromkeys((name, why) for name, why in found if isinstance(why, str))
    if not rows:
        raise UserError(next(why for _, why in out_of_reach))
    return Comparison(
        base=base,
        rows=rows,
        notes=(*data.notes, *map(str, notes), *filter(None, [context.widened])),
        left_out=(*unable, *(_left_out(name, why) for name, why in out_of_reach)),
        job=job.model_dump(mode="json"),
        versions=versions(),
    )


def _rows(
    job: CompareJob, methods: Methods, context: Context, base: BaseFigures, folder: RunFolder
) -> Iterator[tuple[str, Row | str]]:
    """The rows with the names of their methods; instead of one that is out of reach, why."""
    rates: dict[Key, tuple[float, ...]] = {}
    for seed in range(job.seed, job.seed + job.seeds):
        keys = _keys(job, methods)
        names = {key: f"rows/{seed}-{'-'.join(map(str, key))}" for key in keys}
        done = {key: folder.find(name, Row) for key, name in names.items()}
        if not all(done.values()):
            draw = _Draw(job, methods, context, seed)
        for key, row in done.items():
            if row is None:
                try:
                    row = draw.row(key, rates.get(key, job.finetune_rates), base)
                except OutOfReachError as cause:
                    yield key[1], f"{cause}{context.more}"
                    continue
                folder.store(names[key], row)
                folder.keep()
            if row.rate is not None:
                rates.setdefault(key, (row.rate,))
            yield key[1], row


def _keys(job: CompareJob, methods: Methods) -> list[Key]:
    """The rows of a seed; what two allocations come to alike with a method is one row."""
    return [
        (budget, name, allocation, recovery)
        for budget, (name, (method, _)) in itertools.product(job.budgets, methods.items())
        for allocation in _ways(job, method)
        for recovery in job.recoveries
    ]


def _ways(job: CompareJob, method: Method) -> list[str]:
    """How a method shares out budgets."""
    found = [method.allocation if asked == "auto" else asked for asked in job.allocations]
    return ["joint"] if method.joint else list(dict.fromkeys(found))


class _Draw:
    """One seed's draw of calibration samples, and what the methods choose on them."""

    def __init__(self, job: CompareJob, methods: Methods, context: Context, seed: int) -> None:
        self.job, self.methods = job, methods
        _, data = open_both(job, seed=seed)
        self.context = replace(context, data=data, learning=data.calibration, seed=seed)
        ways = [(name, way) for name, (method, _) in methods.items() for way in _ways(job, method)]
        wanted = [statistic for name, way in ways for statistic in statistics_for(*methods[name], way)]
        profile = self.context.statistics(wanted)
        choices = {name: m.choose(profile, options, seed) for name, (m, options) in methods.items()}
        samples = len(data.calibration)
        self._few = {name: tuple(map(str, few_rows(found, samples))) for name, found in choices.items()}
        self._choosing = {
            (name, way): Choosing(self.context, choices[name], profile, way, job.round_to)
            for name, way in ways
        }
        self._decisions: dict[Cut, tuple[GroupDecision, ...]] = {}
        self._value: dict[Cut, float] = {}

    def row(self, key: Key, rates: Sequence[float], base: BaseFigures) -> Row:
        """Cut, recover, train and judge.

        Args:
            key: of the row.
            rates: learning rates to try.
            base: figures of the unpruned model.

        Raises:
            OutOfReachError: the method cannot keep the budget.
        """
        started, context = time.monotonic(), self.context
        (budget, name, way, recovery), cut = key, key[:3]
        if cut not in self._decisions:
            self._decisions[cut] = self._decide(*cut)
        decisions = self._decisions[cut]
        pruned = context.cut(decisions)
        if cut not in self._value:
            # The same for every recovery.
            self._value[cut] = context.evaluate(pruned, "pruned").value
        did = context.recover(pruned, decisions, recovery)
        # Of a choice, and said of its first row.
        notes = [*self._few.pop(name, ()), *map(str, did.notes)]
        recovered = context.evaluate(pruned, "recovered").value if did.ran else None
        finetuned = rate = None
        if self.job.finetune.epochs:
            finetuned, rate = self._trained(pruned, decisions, rates)
            if rate is None:
                tried = ", ".join(f"{rate:g}" for rate in rates)
                notes.append(f"fine-tuning diverged at every learning rate tried ({tried})")
        return Row(
            method=name,
            budget=budget,
            seed=context.seed,
            macs_ratio=count_macs(pruned.cpu(), context.example) / base.macs,
            allocation=way,
            recovery=recovery,
            pruned=self._value[cut],
            recovered=recovered,
            finetuned=finetuned,
            rate=rate,
            kept=sum(len(d.kept) for d in decisions),
            seconds=round(time.monotonic() - started, 1),
            notes=tuple(notes),
        )

    @cached_property
    def _knee(self) -> float:
        """MACs that the first method with a knee keeps at it."""
        name, method = next((name, m) for name, (m, _) in self.methods.items() if m.has_knee)
        return kept_ratio(self.context.cost, self._decide(KNEE, name, _ways(self.job, method)[0]))

    def _decide(self, budget: float | str, name: str, way: str) -> tuple[GroupDecision, ...]:
        if budget != KNEE:
            asked = Budget(**{f"keep_{self.job.budget_of}": float(budget)})
        else:
            asked = Budget() if self.methods[name][0].has_knee else Budget(keep_macs=self._knee)
        return self._choosing[name, way].decide(asked)

    def _trained(
        self, pruned: nn.Module, decisions: Sequence[GroupDecision], rates: Sequence[float]
    ) -> tuple[float | None, float | None]:
        """Held-out accuracy with the rate that is best on validation or calibration data, and the rate.

        A rate with which training diverges is worse than any other; (None, None) when all of them do.
        """
        context, recipe = self.context, self.job.finetune
        sign = 1 if context.task.judged.higher_is_better else -1
        best: tuple[float, nn.Module, float] | None = None
        for rate in rates:
            trained = copied(pruned)
            with suppress(DivergedError, NotFiniteError):
                at_rate = recipe.model_copy(update={"lr": rate})
                context.train(trained, at_rate, decisions, label=f"fine-tuning, lr {rate:g}")
                # With one rate there is nothing to choose, and nothing to measure for it.
                value = sign * judging_of(context).score(trained).value if len(rates) > 1 else 0.0
                if best is None or value > best[0]:
                    best = (value, trained, rate)
        with suppress(NotFiniteError):
            return (context.evaluate(best[1], "fine-tuned").value, best[2]) if best else (None, None)
        return None, None
