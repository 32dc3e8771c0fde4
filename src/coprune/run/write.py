"""Write a finished run's folder, the contract's files: plan, model, result, statistics, page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coprune.store.model import save_model
from coprune.store.profile import save_profile

if TYPE_CHECKING:
    from coprune.run.prune import Outcome


def write_run(run: Path, outcome: Outcome) -> Path:
    """Write everything about a run; ``result.json`` comes last but for the page made from it."""
    from coprune.report import write as write_page

    final = outcome.result.stages[-1]
    notes = {
        "method": outcome.plan.method,
        "budget": outcome.plan.budget,
        "data": outcome.plan.data["name"],
        "top1": final.value,
    }
    save_model(run, outcome.model, notes=notes)
    outcome.plan.save(run / "plan.json")
    if outcome.statistics:
        save_profile(
            run / "profile",
            outcome.statistics,
            model=outcome.plan.model,
            data=outcome.plan.data["fingerprint"],
        )
    outcome.result.save(run / "result.json")
    write_page(run)
    return run
