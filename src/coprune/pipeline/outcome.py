"""What a pruning run hands back, and its run folder: the contract's files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from coprune import given
from coprune.compat.transformers import CONFIG
from coprune.distributed.collectives import on_first
from coprune.errors import UnwrittenError, UserError
from coprune.files import writing
from coprune.folders import check_idle, newcomer, real
from coprune.plan import Plan
from coprune.report import write as write_page
from coprune.result import Result
from coprune.store.model import DESCRIPTION, WEIGHTS, describe, save_model
from coprune.store.profile import INDEX, save_profile
from coprune.tracing.forward import Inputs, notes_of

_WRITTEN = (WEIGHTS, DESCRIPTION, CONFIG, "plan.json", "result.json", "report.html", "profile")


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
        """Write a run folder: model, plan, figures, statistics, and last the page made from them.

        What an earlier outcome has left in the folder is written over once all of this one is on disk, but
        no other model. The first of several processes does it; all must ask.

        Returns:
            The folder.

        Raises:
            UserError: no free disk, no permission, a folder with a model that this is not a later version of.
        """
        folder = given.folder(run, "run")
        on_first(lambda: self._save(folder))
        return folder

    def _save(self, folder: Path) -> None:
        with writing(folder):
            check_idle(folder)
            self._check_ours(folder)
            place = real(folder)
            new = newcomer(place)
            shutil.rmtree(new, ignore_errors=True)
            try:
                self._write(new)
                place.mkdir(parents=True, exist_ok=True)
                for file in [path for path in new.rglob("*") if path.is_file()]:
                    target = place / file.relative_to(new)
                    target.parent.mkdir(exist_ok=True)
                    file.replace(target)
            finally:
                shutil.rmtree(new, ignore_errors=True)

    def _check_ours(self, folder: Path) -> None:
        found = [name for name in _WRITTEN if (folder / name).exists()]
        if found and "plan.json" not in found:
            raise UserError(f"{folder}: holds {found[0]}, and no pruned model; name another folder")
        if DESCRIPTION in found and describe(folder).fingerprint == self.plan.model:
            raise UserError(f"{folder}: holds the model that this was pruned from; name another folder")

    def write(self, folder: Path) -> None:
        """Write into the folder of a run, what is dearest first; as :meth:`save`, but it need not ask."""
        on_first(lambda: self._write(folder))

    def _write(self, folder: Path) -> None:
        try:
            self._write_figures(folder)
        except UnwrittenError:
            # Statistics of this run, there for a resumed one, may have taken the room.
            if not (folder / "profile").is_dir():
                raise
            shutil.rmtree(folder / "profile", ignore_errors=True)
            self._write_figures(folder)
        if self.statistics:
            save_profile(
                folder / "profile",
                self.statistics,
                model=self.plan.model,
                data=self.plan.data["statistics"],
                groups={g.name: g.size for g in self.plan.groups},
            )
        write_page(folder)

    def _write_figures(self, folder: Path) -> None:
        notes = {
            "method": self.plan.method,
            "budget": self.plan.budget,
            "data": self.plan.data["name"],
            self.result.stages[-1].metric: self.result.stages[-1].value,
            **({"task": self.plan.settings["task"]} if "task" in self.plan.settings else {}),
            **({} if self.example is None else notes_of(self.example)),
        }
        save_model(folder, self.model, notes=notes)
        self.plan.save(folder / "plan.json")
        self.result.save(folder / "result.json")


def is_written(folder: Path) -> bool:
    """Whether all of an outcome is in the folder of an unfinished run; its page is made anew."""
    if not ((folder / "result.json").is_file() and (folder / "profile" / INDEX).is_file()):
        return False
    write_page(folder)
    return True
