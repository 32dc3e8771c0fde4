"""Training at the end of a run, and the model before it where that was the better one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from coprune.distributed.collectives import check_same
from coprune.errors import setting
from coprune.models.copies import copied
from coprune.pipeline.pruning import Pruning
from coprune.pipeline.run_folder import RunFolder
from coprune.plan import GroupDecision
from coprune.result import Code, Judged, Note
from coprune.store.model import weights_fingerprint
from coprune.training import DivergedError

Trained = tuple[nn.Module, Judged | None, Note | None]
"""The trained model, or the one before where training made it worse; on what samples that was judged (None
where training diverged); and, of the one before, why."""


def finetuned(
    run: Pruning,
    pruned: nn.Module,
    decisions: Sequence[GroupDecision],
    folder: RunFolder | None,
    *,
    limit: float | None = None,
) -> Trained:
    """Train, in place, and judge against the model before; with ``max_drop`` against the unpruned one.

    Args:
        run: what was asked, and what judges.
        pruned: after recovery.
        decisions: what was cut.
        folder: where unfinished training is kept.
        limit: the largest loss that ``max_drop`` allows, in the metric's unit.

    Raises:
        UserError: see :func:`coprune.training.fit`.
    """
    context, recipe, judging, before = run.context, run.settings.finetune, run.judging, copied(pruned)
    unit = judging.task.judged.loss_unit

    def undone(why: str, way_out: str = "", judged: Judged | None = None) -> Trained:
        text = f"{why}; the model before it is handed back{way_out}"
        return before, judged, Note(Code.FINETUNING_UNDONE, text)

    try:
        unfinished = folder.work / "finetune.safetensors" if folder else None
        context.train(pruned, recipe, decisions, checkpoint=unfinished)
    except DivergedError as cause:
        return undone(str(cause))
    check_same(pruned, weights_fingerprint, what="result of the training")
    loss = judging.loss(before if limit is None else context.model, pruned)
    on = f"{len(judging.source):,} {judging.samples}"
    if limit is not None:
        if loss.within(limit):
            return pruned, judging.judged("max_drop", loss, allowed=limit), None
        return undone(
            f"after fine-tuning {on} no longer show a loss of at most "
            f"{limit:g} {unit} ({loss.found:.2f}, up to {loss.high:.2f})"
        )
    judged = judging.judged("fine-tuning", loss)
    if loss.low <= 0:
        return pruned, judged, None
    return undone(
        f"fine-tuning made the model worse by {loss.found:.2f} {unit} ({loss.low:.2f} to {loss.high:.2f}) "
        f"on {on}",
        f"; give a lower {setting('finetune_lr')} than {recipe.lr:g}, or {setting('finetune_epochs', 0)}",
        judged,
    )
