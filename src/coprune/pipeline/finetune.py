"""Training at the end of a run, and the model before it where that was the better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from coprune.budget.search import within
from coprune.data import DataSet
from coprune.distributed.collectives import check_same
from coprune.errors import setting
from coprune.models.copies import copied
from coprune.pipeline.judging import Judging
from coprune.pipeline.settings import PruneSettings
from coprune.plan import GroupDecision
from coprune.recovery import kept_outputs
from coprune.result import Code, Judged, Note
from coprune.store.model import weights_fingerprint
from coprune.store.run_folder import RunFolder
from coprune.training import Checkpoint, DivergedError, fit


@dataclass(frozen=True)
class Finetuned:
    """What came of training.

    Attributes:
        model: the trained one, or the one before where training made it worse.
        kept: whether it is the trained one.
        judged: what said so; None where training diverged.
        notes: what a user should know.
    """

    model: nn.Module
    kept: bool
    judged: Judged | None
    notes: tuple[Note, ...] = ()


def finetuned(
    pruned: nn.Module,
    teacher: nn.Module,
    decisions: Sequence[GroupDecision],
    data: DataSet,
    settings: PruneSettings,
    judging: Judging,
    *,
    folder: RunFolder | None,
    device: str,
) -> Finetuned:
    """Train, in place, and judge against the model before; with ``max_drop`` against the unpruned one.

    Args:
        pruned: after recovery.
        teacher: the unpruned model.
        decisions: what was cut.
        data: its training part is trained on.
        settings: how.
        judging: decides whether the trained model stays.
        folder: where unfinished training is kept.
        device: where to compute.

    Raises:
        UserError: see :func:`coprune.training.fit`.
    """
    before, limit = copied(pruned), settings.budget.max_drop
    undone = "the model before it is handed back"
    try:
        fit(
            pruned,
            data.train,
            settings.finetune,
            seed=settings.seed,
            teacher=teacher if settings.finetune.taught else None,
            kept=kept_outputs(teacher, decisions),
            checkpoint=Checkpoint(folder.work / "finetune.safetensors") if folder else None,
            device=device,
            label="fine-tuning",
        )
    except DivergedError as cause:
        return Finetuned(before, False, None, (Note(Code.FINETUNING_UNDONE, f"{cause}; {undone}"),))
    check_same(pruned, weights_fingerprint, what="result of the training")
    if limit is not None:
        loss = judging.loss(teacher, pruned, device=device)
        if within(limit, loss):
            return Finetuned(pruned, True, judging.judged("max_drop", loss, allowed=limit))
        said = (
            f"after fine-tuning {len(judging.source):,} {judging.samples} no longer show a loss of at most "
            f"{limit:g} points ({loss.found:.2f}, up to {loss.high:.2f}); {undone}"
        )
        return Finetuned(before, False, None, (Note(Code.FINETUNING_UNDONE, said),))
    loss = judging.loss(before, pruned, device=device)
    judged = judging.judged("fine-tuning", loss)
    if loss.low <= 0:
        return Finetuned(pruned, True, judged)
    said = (
        f"fine-tuning made the model worse by {loss.found:.2f} points ({loss.low:.2f} to {loss.high:.2f}) on "
        f"{len(judging.source):,} {judging.samples}; {undone}; give a lower {setting('finetune_lr')} than "
        f"{settings.finetune.lr:g}, or {setting('finetune_epochs', 0)}"
    )
    return Finetuned(before, False, judged, (Note(Code.FINETUNING_UNDONE, said),))
