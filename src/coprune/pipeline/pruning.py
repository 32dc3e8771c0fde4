"""A pruning run that has passed every check: what it works with, and what was asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from coprune.data import DataSet
from coprune.measure.memory import check_batches
from coprune.methods.base import Method
from coprune.methods.registry import check_reads
from coprune.models.canonicalize import canonical_copy
from coprune.options import Options
from coprune.pipeline.checks import check_trainings
from coprune.pipeline.context import Context
from coprune.pipeline.environment import pick_device, set_up
from coprune.pipeline.judging import Judging, parts_for
from coprune.pipeline.removable import Scope
from coprune.pipeline.settings import (
    PruneSettings,
    check_settings,
    kinds_of,
    resolved,
    trained_as_suits,
    trainings,
)
from coprune.pipeline.which_task import Asked, can_train, task_for
from coprune.store.state_dict import check_finite


@dataclass(frozen=True)
class Pruning:
    """What the steps of ``prune`` share.

    Attributes:
        context: of the run.
        settings: what was asked, with every ``auto`` resolved.
        method: which units to keep.
        options: the method's settings.
        judging: samples that judge.
        searched: whether recovered models are judged to find the size.
    """

    context: Context
    settings: PruneSettings
    method: Method
    options: Options
    judging: Judging
    searched: bool

    @staticmethod
    def of(model: nn.Module, data: DataSet, settings: PruneSettings, asked: Asked | None = None) -> Pruning:
        """Check all that can be checked before work.

        Args:
            model: the trained network; left as it is.
            data: in three parts; decisions use the calibration part only.
            settings: what to do.
            asked: what was said of the task.

        Raises:
            UserError: anything about model, data or settings that the user can mend.
        """
        method, options = check_settings(settings)
        device = pick_device(settings.device)
        set_up(threads=settings.threads, seed=settings.seed)
        check_finite(model.state_dict(), model=model, where=f"this {type(model).__name__}")
        model = canonical_copy(model)
        task = task_for(model, data, asked)
        check_reads(method, options, classes=data.classes is not None, loss=can_train(task, data))
        settings = trained_as_suits(resolved(settings, method), model)
        kinds = kinds_of(settings, method)
        offered = kinds if settings.budget.keep_heads is not None else method.units
        scope = Scope(kinds, offered, settings, budget=settings.budget.shares)
        context = Context.of(
            model, data, scope, task=task, device=device, seed=settings.seed, effort=settings.effort
        )
        example, batches = context.example, settings.latency_batches
        check_batches(model, example, batches, name="latency_batches", device=device)
        check_trainings(model, data, context.task, trainings(settings), device=device)
        # A network whose size the knee of its recovered curve decides is judged as one with a largest loss.
        own_curve = settings.budget.empty and method.knee_of_curve and settings.schedule == "oneshot"
        searched = settings.budget.max_drop is not None or own_curve
        learning, judging = parts_for(context, searched=searched)
        return Pruning(replace(context, learning=learning), settings, method, options, judging, searched)

    @property
    def statistics_from(self) -> str:
        """Fingerprint of the samples that statistics come from.

        A search judges on samples that its statistics never saw, so those are other statistics than the ones
        of all calibration samples, and neither may be reused for the other.
        """
        data = self.context.data
        if self.context.learning is data.calibration:
            return data.fingerprint
        return f"{data.fingerprint}-half{self.settings.seed}"
