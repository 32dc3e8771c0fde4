"""The paper's schedule: layer after layer, first to last, each cut followed by a little training.

Every finished layer leaves its decision and the model so far in ``run/work/layers``, so that an
interrupted run continues with the layer it was at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from torch import nn

from coprune.budget.counts import nearest_allowed
from coprune.budget.decide import counts
from coprune.data import DataSet
from coprune.distributed.collectives import check_same
from coprune.distributed.world import is_first
from coprune.errors import UserError, setting
from coprune.files import LARGE, dispensable, read_document, write_json
from coprune.groups import ChannelGroup, Units, find_units
from coprune.methods.base import Method, Untouched
from coprune.models.copies import copied
from coprune.pipeline.context import Prepared, gather_for
from coprune.pipeline.settings import PruneSettings, kinds_of
from coprune.plan import GroupDecision, ReasonCode
from coprune.progress import track
from coprune.store.model import load, save_model, weights_fingerprint
from coprune.store.run_folder import RunFolder
from coprune.surgery import cut
from coprune.training import Checkpoint, fit


def prune_layer_by_layer(
    model: nn.Module,
    data: DataSet,
    prepared: Prepared,
    method: Method,
    options: Any,
    settings: PruneSettings,
    *,
    folder: RunFolder | None,
    device: str,
) -> tuple[tuple[GroupDecision, ...], nn.Module]:
    """Select, cut and train one group at a time.

    With a budget every group's count is known beforehand; without one each group's knee is read from
    the network as it is by then. A group is cut once, so its indices are those of the full model.

    Args:
        model: unpruned; left as it is.
        data: statistics from the calibration part, training on the training part.
        prepared: the model's groups.
        method: which units to keep.
        options: the method's settings.
        settings: the run's.
        folder: for resuming.
        device: where to compute.

    Returns:
        The decisions in the order of the network, and the pruned, partly trained model.

    Raises:
        UserError: a method that chooses over all layers at once, or one that leaves a group whole which the
            budget counted on.
    """
    budget = settings.budget
    fixed: dict[str, int] | None = None
    if not budget.empty:
        fixed, _ = counts(budget, prepared.cost, [], allocation="uniform", round_to=settings.round_to)
    current = copied(model)
    decisions: list[GroupDecision] = []
    members = {g.name: g.members for g in prepared.units.groups}
    names = list(members)
    for index, name in enumerate(track(names, label="layers", total=len(names))):
        place = folder.work / "layers" / f"{index:03d}" if folder else None
        if place and (place / "decision.json").is_file():
            decisions.append(_read_decision(place))
            current = load(place, model=copied(model))
            continue
        group = _find(current, prepared, name, kinds=kinds_of(settings, method))
        here = Prepared(prepared.example, Units((group,), ()), prepared.cost)
        profile = gather_for(
            current, here, data.calibration, method.needs(options), classes=data.classes, device=device
        )
        current.cpu()
        choices = method.choose(profile, options, settings.seed)
        if not isinstance(choices, Sequence):
            raise UserError(
                f"'{method.name}' chooses over all layers at once; leave "
                f"{setting('schedule', 'layerwise')} out"
            )
        (choice,) = choices
        if fixed is not None and fixed[name] < group.size and isinstance(choice, Untouched):
            # The counts of the layers before it, which are cut and trained, took it to shrink too.
            raise UserError(
                f"{budget.words} cannot be kept layer by layer: '{name}' stays whole ({choice.cause}); leave "
                f"{setting('schedule', 'layerwise')} out"
            )
        if fixed is not None:
            k, why, code = fixed[name], f"as many as {budget.words} allows", ReasonCode.BUDGET
        else:
            k = nearest_allowed(choice.knee.k if choice.knee else group.size, group.size, settings.round_to)
            why, code = "the knee of its curve", ReasonCode.KNEE
        decision = choice.keep(k, why=why)
        current = cut(current, (decision,), prepared.example)
        if settings.between.epochs:
            fit(
                current,
                data.train,
                settings.between,
                seed=settings.seed + 1000 * (index + 1),
                teacher=model if settings.between.taught else None,
                checkpoint=Checkpoint(place / "training.safetensors") if place else None,
                device=device,
                label=f"training after {name}",
            )
            current.cpu()
        check_same(current, weights_fingerprint, what=f"network after {name}")
        # Offsets behind a concatenation are those of the network by then; the plan's, of the full one.
        decision = decision.model_copy(
            update={"members": members[name], "reason_code": decision.reason_code or code}
        )
        decisions.append(decision)
        if place and folder:
            with dispensable("the network after this layer"):
                save_model(place, current)
                # Written last: its presence says that this layer is whole.
                content = {"schema": 1, "decision": decision.model_dump(mode="json")}
                write_json(place / "decision.json", content)
                if is_first():
                    (place / "training.safetensors").unlink(missing_ok=True)
            folder.log("layer", name=name, kept=len(decision.kept), size=decision.size)
    return tuple(decisions), current


def _find(current: nn.Module, prepared: Prepared, name: str, *, kinds: Sequence[str]) -> ChannelGroup:
    units = find_units(current, prepared.example, coupled="coupled" in kinds)
    return next(g for g in units.groups if g.name == name)


def _read_decision(place: Path) -> GroupDecision:
    return read_document(place / "decision.json", _Stored, what="decision", schema=1, limit=LARGE).decision


class _Stored(BaseModel):
    schema_version: int = Field(alias="schema")
    decision: GroupDecision
