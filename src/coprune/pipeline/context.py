"""What every step of a run works with, made once, and the steps: statistics, cut, recovery, figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coprune.budget.cost import CostModel, Quantity
from coprune.budget.counts import OutOfReachError, least_counts
from coprune.data import DataSet, MemorySource, Source
from coprune.data.dataset import check_classes, in_memory
from coprune.data.sharding import own_batches
from coprune.data.source import name_of
from coprune.distributed.collectives import on_first
from coprune.distributed.world import world
from coprune.errors import UserError
from coprune.groups import Units
from coprune.measure import (
    LatencyPlan,
    Reference,
    Score,
    count_macs,
    count_params,
    evaluate,
    measure_latency,
    peak_memory,
)
from coprune.measure.evaluation import CLASSIFICATION, judged_by
from coprune.measure.memory import samples_at_once
from coprune.models.canonicalize import restore_format
from coprune.pipeline.checks import check_first_samples
from coprune.pipeline.removable import Scope, removable
from coprune.pipeline.which_task import scaled
from coprune.plan import GroupDecision
from coprune.recovery import Pair, Recovered, find_recovery, kept_outputs
from coprune.result import Latency, Stage, StageName
from coprune.statistics import Calibration, Profile, Statistic, collect
from coprune.store.model import weights_fingerprint
from coprune.store.profile import check_profile
from coprune.store.tensors import tensor_file_size
from coprune.surgery import cut
from coprune.task import Task
from coprune.tasks.metrics import Metric
from coprune.tracing.forward import FAILURES, Inputs, check_takes, moved, part_of
from coprune.training import Checkpoint, Recipe, fit
from coprune.training.distill import Teacher
from coprune.user_code import within

_LARGE = 0.05  # share of the cost from which a layer that is left alone is named

_PASS = 250  # samples of a pass, at most


@dataclass(frozen=True)
class Context:
    """What every step of a run works with.

    Attributes:
        model: unpruned, canonicalised, on the CPU between steps.
        data: in three parts; decisions use the calibration part only.
        task: what the outputs mean.
        learning: the calibration samples that statistics and recovery see; a search sets others aside.
        example: one sample to trace with, ``[1, …]``.
        units: what may be removed, and what not.
        cost: of the groups.
        device: where to compute.
        seed: of all draws.
        effort: times the usual samples and passes of what takes long.
        scope: what was asked to be removed, or was taken in.
        more: what would let more be removed, in words.
        widened: why more than the default kinds of units may go, if so.
    """

    model: nn.Module
    data: DataSet
    task: Task
    learning: Source
    example: Inputs
    units: Units
    cost: CostModel
    device: str
    seed: int
    effort: float
    scope: Scope = field(default_factory=Scope)
    more: str = ""
    widened: str = ""

    @staticmethod
    def of(
        model: nn.Module,
        data: DataSet,
        scope: Scope | None = None,
        *,
        task: Task = CLASSIFICATION,
        device: str,
        seed: int = 0,
        effort: float = 1.0,
    ) -> Context:
        """Check that model and data fit, and find what can be removed.

        Args:
            model: unpruned, see :func:`coprune.models.canonicalize.canonical_copy`.
            data: one held-out sample is traced with.
            scope: what may be removed.
            task: what the outputs mean.
            device: where to compute later.
            seed: of all draws.
            effort: see :class:`coprune.pipeline.settings.Working`.

        Raises:
            UserError: the model does not take the data, or nothing can be removed (with all reasons).
        """
        inputs, _ = next(iter(data.heldout.batches(1)))
        example = moved(part_of(inputs, [0]), "cpu")
        model.cpu()
        with within(name_of(data.heldout)):
            check_takes(model, example, lambda output: task.read(output, example))
        check_first_samples(model, data, task)
        task = scaled(task, model.eval(), data.calibration)

        def counts(output: Any) -> tuple[Tensor, ...]:
            return task.read(output, example).tensors

        found = removable(model, example, data.calibration, scope or Scope(), counts)
        learning = data.calibration
        return Context(
            model, data, task, learning, example, device=device, seed=seed, effort=effort, **vars(found)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights."""
        return weights_fingerprint(self.model)

    @cached_property
    def pass_size(self) -> int:
        """Samples of a forward pass, by what they take."""
        return samples_at_once(self.model, self.example, _PASS)

    @cached_property
    def reference(self) -> Reference:
        """The unpruned model's outputs, which an agreement is judged by."""
        return Reference(self.model, self.task)

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
        large = [(n, share) for n, share in costs.items() if n in reasons and share >= _LARGE]
        named = [f"{n} {share:.3f} ({reasons[n]})" for n, share in large[:3]]
        return f"; in the way: {', '.join(named)}" if named else ""

    def statistics(
        self,
        wanted: Sequence[Statistic],
        *,
        known: Mapping[str, Mapping[str, Tensor]] | None = None,
        where: str = "this run",
    ) -> Profile:
        """The profile that methods ask for.

        Args:
            wanted: what to gather.
            known: statistic → tensors that were gathered before, and are not again.
            where: the known ones are from, for messages.

        Raises:
            UserError: see :func:`coprune.statistics.collect`; too few samples of a class for what is asked
                for; known tensors of another network.
        """
        have = dict(known or {})
        if have:
            # A sample a process shows names, shapes and types.
            few = in_memory([next(iter(self.learning.batches(max(2, world()))))], labelled=False)
            due = self._collected([s for s in wanted if s.key in have], few, batch_size=1)
            check_profile(have, due, where=where)
        missing = {s.key: s for s in wanted if s.key not in have}
        labels = self.learning.labels if isinstance(self.learning, MemorySource) else None
        classes = any(s.reads == "classes" for s in missing.values())
        if classes and labels is not None and self.data.classes is not None:
            check_classes(labels, self.data.classes, where="calibration samples")
        try:
            found = self._collected(missing.values(), self.learning)
        except UserError:
            raise
        except FAILURES:
            # Whose fault is it? No exchange here: other processes know nothing of this.
            self.model.to(self.device)
            for batch in own_batches(self.learning, self.pass_size):
                with within(name_of(self.learning)):
                    check_takes(self.model, moved(batch.inputs, self.device))
            raise
        self.model.cpu()
        return Profile(self.units.groups, {**have, **found}, self.device)

    def _collected(
        self, wanted: Iterable[Statistic], source: Source, batch_size: int = 0
    ) -> dict[str, dict[str, Tensor]]:
        calibration = Calibration(
            self.model,
            self.units.groups,
            source,
            self.data.classes,
            batch_size or self.pass_size,
            self.device,
            task=self.task,
            backward_size=batch_size or samples_at_once(self.model, self.example, _PASS, backward=True),
        )
        return collect(calibration, wanted)

    def cut(self, decisions: Sequence[GroupDecision]) -> nn.Module:
        """A copy of the model without the units that go."""
        return cut(self.model, tuple(decisions))

    def recover(
        self,
        pruned: nn.Module,
        decisions: Sequence[GroupDecision],
        how: str,
        *,
        kept: Mapping[str, Tensor] | None = None,
    ) -> Recovered:
        """Bring accuracy back without labels, in place.

        Args:
            pruned: right after surgery.
            decisions: what was cut.
            how: one of :data:`coprune.recovery.RECOVERIES`.
            kept: layer → output channels that it still has, where decisions do not say it.
        """
        kept = kept_outputs(self.model, decisions) if kept is None else kept
        pair = Pair(pruned, self.model, kept, decisions, self.device, self.task, self.effort)
        did = find_recovery(how).run(pair, self.learning, seed=self.seed)
        self.model.cpu()
        return did

    def train(
        self,
        pruned: nn.Module,
        recipe: Recipe,
        decisions: Sequence[GroupDecision] | None = None,
        *,
        checkpoint: Path | None = None,
        label: str = "fine-tuning",
    ) -> None:
        """Train on the training part, in place, with the unpruned model as the teacher where it is asked for.

        Args:
            pruned: some of its units gone.
            recipe: how.
            decisions: what was cut, which says what hidden outputs are compared.
            checkpoint: where unfinished training is kept.
            label: of the progress bar.

        Raises:
            UserError: see :func:`coprune.training.fit`.
        """
        kept = None if decisions is None else kept_outputs(self.model, decisions)
        try:
            fit(
                pruned,
                self.data.training,
                recipe,
                task=self.task,
                seed=self.seed,
                teacher=Teacher(self.model, kept),
                checkpoint=Checkpoint(checkpoint) if checkpoint else None,
                device=self.device,
                label=label,
            )
        finally:
            # Also where it diverged: what is cut next is on the CPU.
            self.model.cpu()
            pruned.cpu()

    def evaluate(self, model: nn.Module, name: str) -> Score:
        """Held-out accuracy; the model goes to the CPU."""
        return self.score(model, self.data.heldout, self.task, label=f"{self.task.judged.what}, {name}")

    def score(self, model: nn.Module, source: Source, task: Task, *, label: str) -> Score:
        """How good a model is on samples by the metric of a task; it goes to the CPU.

        Args:
            model: the unpruned one, or what became of it.
            source: the samples.
            task: whose metric judges.
            label: of the progress bar.
        """
        how: dict[str, Any] = {
            "reference": self.reference,
            "batch_size": self.pass_size,
            "device": self.device,
        }
        score = evaluate(model, source, task=task, label=label, **how)
        model.cpu()
        return score

    def measure(self, name: StageName, model: nn.Module, score: Score | None = None) -> Stage:
        """All figures of a model after one step.

        Args:
            name: of the step.
            model: after it.
            score: held-out, where it is measured already.
        """
        score = score or self.evaluate(model, name)
        on, value = self.data.calibration, None
        if judged_by(self.task, on) is self.task:
            label = f"{self.task.judged.what}, calibration, {name}"
            value = self.score(model, on, self.task, label=label).value
        return stage_of(name, model, score, self.example, calibration=value)

    def latency(self, pruned: nn.Module, plan: LatencyPlan) -> tuple[Latency, ...]:
        """Times of both models, in the layout that the user's had; the other processes keep still."""
        base, small = restore_format(self.model), restore_format(pruned)
        return on_first(lambda: measure_latency(base, small, self.example, plan, device=self.device))


def stage_of(
    name: StageName, model: nn.Module, score: Score, example: Inputs, *, calibration: float | None = None
) -> Stage:
    """Size of a model beside the accuracy that was measured; the model goes to the CPU.

    Args:
        name: of the stage.
        model: to measure.
        score: held-out.
        example: one sample ``[1, …]``.
        calibration: accuracy on calibration samples, where it was measured.
    """
    model.cpu()
    return Stage(
        name=name,
        interval=score.interval,
        calibration=calibration,
        bytes=tensor_file_size(model.state_dict()),
        peak_memory=peak_memory(model, example),
        **figures_of(model, score, example),
    )


def figures_of(model: nn.Module, score: Score, example: Inputs) -> dict[str, Any]:
    """What a stage and the base of a comparison say alike of a model on the CPU; see :func:`stage_of`."""
    return {
        **judged_in(score.metric),
        "value": score.value,
        "samples": score.samples,
        "macs": count_macs(model, example),
        "params": count_params(model),
    }


def judged_in(metric: Metric) -> dict[str, Any]:
    """How documents name a metric."""
    return {"metric": metric.name, "higher_is_better": metric.higher_is_better, "unit": metric.unit}
