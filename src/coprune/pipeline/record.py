"""What a run has measured so far: stages, seconds and notes, and the result they make."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from coprune.distributed.world import world
from coprune.measure import Score
from coprune.pipeline.context import Context
from coprune.pipeline.environment import versions
from coprune.result import Code, Note, Result, Stage, StageName

STEPS = ("profile", "select", "surgery", "recover", "finetune")
"""Steps whose seconds every result has."""


class Record:
    """The figures of one run while it goes on.

    Attributes:
        stages: the model after each step.
        notes: what a user should know.
        seconds: of each step.
    """

    def __init__(self, context: Context, *, base: Score | None = None) -> None:
        """The data's notes come first, and the unpruned model.

        Args:
            context: of the run.
            base: held-out, where it is measured already.
        """
        self._context = context
        self.stages: list[Stage] = []
        self.notes = [Note(Code.DATA, note) for note in context.data.notes]
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.stage("base", context.model, base)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - started

    def stage(self, name: StageName, model: nn.Module, score: Score | None = None) -> None:
        """Measure a model after a step; see :meth:`coprune.pipeline.context.Context.measure`."""
        with self.timed("measure"):
            self.stages.append(self._context.measure(name, model, score))

    def note(self, code: Code, text: str) -> None:
        """Note what a user should know."""
        self.notes.append(Note(code, text))

    def lost(self) -> float:
        """What the last stage has lost of the held-out figure, in points or the metric's unit."""
        return self._context.task.judged.lost(self.stages[0].value, self.stages[-1].value)

    def result(self, *, before: Iterable[Note] = (), **more: Any) -> Result:
        """All figures.

        Args:
            before: notes that come first.
            more: other fields of :class:`coprune.result.Result`.
        """
        return Result(
            seed=self._context.seed,
            stages=tuple(self.stages),
            calibration=len(self._context.data.calibration),
            seconds={step: round(seconds, 3) for step, seconds in self.seconds.items()},
            versions=versions(),
            processes=world(),
            notes=(*before, *self.notes),
            **more,
        )
