"""What a pruning run hands back, and its run folder: the contract's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from coprune import given
from coprune.forward import READS, Inputs, shapes_of
from coprune.plan import Plan
from coprune.ranks.exchange import on_first
from coprune.report import write as write_page
from coprune.result import Result
from coprune.store.model import save_model
from coprune.store.profile import save_profile


@dataclass(frozen=True)
class Outcome:
    """What a run hands back.

    Attributes:
        model: the smaller model, on the CPU, in evaluation mode.
        plan: what was kept, and why.
        result: every figure.
        statistics: what the plan was concluded from: key → name → tensor.
        example: a sample of what the model reads, ``[1, …]``.
    """

    model: nn.Module
    plan: Plan
    result: Result
    statistics: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    example: Inputs | None = field(default=None, repr=False)

    def save(self, run: str | Path) -> Path:
        """Write the run folder: plan, model, statistics, figures, and last the page made from them.

        The first of several processes does it; all must ask.

        Returns:
            The folder.

        Raises:
            UserError: no free disk, or no permission.
        """
        folder = given.folder(run, "run")
        return on_first(lambda: self._save(folder))

    def _save(self, folder: Path) -> Path:
        notes = {
            "method": self.plan.method,
            "budget": self.plan.budget,
            "data": self.plan.data["name"],
            "top1": self.result.stages[-1].value,
            **({} if self.example is None else {READS: shapes_of(self.example)}),
        }
        save_model(folder, self.model, notes=notes)
        self.plan.save(folder / "plan.json")
        if self.statistics:
            save_profile(
                folder / "profile",
                self.statistics,
                model=self.plan.model,
                data=self.plan.data["statistics"],
                groups={g.name: g.size for g in self.plan.groups},
            )
        self.result.save(folder / "result.json")
        write_page(folder)
        return folder
