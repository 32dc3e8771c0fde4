"""The paper's schedule: layer after layer, first to last, each cut followed by a little training.

Every finished layer leaves its decision and the model so far in ``run/work/layers``, so that an
interrupted run continues with the layer it was at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from coprune.budget.counts import nearest_allowed
from coprune.budget.decide import counts
from coprune.distributed.collectives import check_same
from coprune.distributed.world import is_first
from coprune.errors import UserError, setting
from coprune.files import dispensable
from coprune.groups import ChannelGroup, Units
from coprune.methods.base import Untouched
from coprune.models.copies import copied
from coprune.pipeline.context import Context
from coprune.pipeline.pruning import Pruning
from coprune.pipeline.run_folder import RunFolder
from coprune.plan import GroupDecision, ReasonCode
from coprune.progress import track
from coprune.store.model import load, save_model, weights_fingerprint

Counts = dict[str, int] | None
"""Group → units that a budget leaves it; None where each group's knee decides."""


def prune_layer_by_layer(
    run: Pruning, folder: RunFolder | None
) -> tuple[tuple[GroupDecision, ...], nn.Module]:
    """Select, cut and train one group at a time.

    With a budget every group's count is known beforehand; without one each group's knee is read from
    the network as it is by then. A group is cut once, so its indices are those of the full model.

    Args:
        run: statistics from the calibration part, training on the training part.
        folder: for resuming.

    Returns:
        The decisions in the order of the network, and the pruned, partly trained model.

    Raises:
        UserError: a method that chooses over all layers at once, or one that leaves a group whole which the
            budget counted on.
    """
    settings, full = run.settings, run.context
    fixed: Counts = None
    if not settings.budget.empty:
        fixed, _ = counts(settings.budget, full.cost, [], allocation="uniform", round_to=settings.round_to)
    current = copied(full.model)
    decisions: list[GroupDecision] = []
    groups = full.units.groups
    for index, group in enumerate(track(groups, label="layers", total=len(groups))):
        name = f"layers/{index:03d}/decision"
        place = (folder.work / name).parent if folder else None
        done = folder.find(name, GroupDecision) if folder else None
        if place and done:
            decisions.append(done)
            current = load(place, model=copied(full.model))
            continue
        here = Units((_as_it_is(full, current, group.name),), ())
        decision, current = _prune_one(run, replace(full, model=current, units=here), fixed)
        if settings.between.epochs:
            unfinished = place / "training.safetensors" if place else None
            own, label = replace(full, seed=full.seed + 1000 * (index + 1)), f"training after {group.name}"
            own.train(current, settings.between, checkpoint=unfinished, label=label)
        check_same(current, weights_fingerprint, what=f"network after {group.name}")
        # Offsets behind a concatenation are those of the network by then; the plan's, of the full one.
        decision = decision.model_copy(update={"members": group.members})
        decisions.append(decision)
        if place and folder:
            with dispensable("the network after this layer"):
                save_model(place, current)
                # Written last: its presence says that this layer is whole.
                folder.store(name, decision)
                if is_first():
                    (place / "training.safetensors").unlink(missing_ok=True)
            folder.log("layer", name=group.name, kept=len(decision.kept), size=decision.size)
    return tuple(decisions), current


def _as_it_is(context: Context, current: nn.Module, name: str) -> ChannelGroup:
    """A group of the network as it is by now."""
    task, example = context.task, context.example
    found = context.scope.units(current, example, lambda output: task.read(output, example).tensors)
    return next(g for g in found.groups if g.name == name)


def _prune_one(run: Pruning, context: Context, fixed: Counts) -> tuple[GroupDecision, nn.Module]:
    """Choose and cut in the only group of a context."""
    profile = context.statistics(run.method.needs(run.options))
    choices = run.method.choose(profile, run.options, context.seed)
    leave_out = f"leave {setting('schedule', 'layerwise')} out"
    if not isinstance(choices, Sequence):
        raise UserError(f"'{run.method.name}' chooses over all layers at once; {leave_out}")
    (choice,) = choices
    name, budget = choice.group.name, run.settings.budget
    if fixed is None:
        size = choice.group.size
        k = nearest_allowed(choice.knee.k if choice.knee else size, size, run.settings.round_to)
        decision = choice.keep(k, why="the knee of its curve")
    elif fixed[name] < choice.group.size and isinstance(choice, Untouched):
        # The counts of the layers before it, which are cut and trained, took it to shrink too.
        raise UserError(
            f"{budget.words} cannot be kept layer by layer: '{name}' stays whole ({choice.cause}); "
            f"{leave_out}"
        )
    else:
        decision = choice.keep(fixed[name], why=f"as many as {budget.words} allows")
    code = ReasonCode.KNEE if fixed is None else ReasonCode.BUDGET
    decision = decision.model_copy(update={"reason_code": decision.reason_code or code})
    return decision, context.cut((decision,))
