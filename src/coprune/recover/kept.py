"""Which output channels of every layer survived: from the decisions that cut them, or by looking."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.plan import GroupDecision
from coprune.profile.rows import draw_positions, pick_outputs
from coprune.recover.sites import find_sites
from coprune.units import channel_indices

_PLACES = 16
_ALIKE = 0.5


def kept_outputs(teacher: nn.Module, decisions: Iterable[GroupDecision]) -> dict[str, Tensor]:
    """Layer → output channels of the unpruned layer that are still there, for layers that lost some.

    Args:
        teacher: the unpruned model.
        decisions: what was cut.
    """
    gone: dict[str, list[Tensor]] = {}
    for decision in decisions:
        removed = torch.tensor(sorted(set(range(decision.size)) - set(decision.kept)), dtype=torch.int64)
        for member in decision.members:
            if member.role != "consumer" and len(removed):
                gone.setdefault(member.layer, []).append(channel_indices(member, removed))
    found = {}
    for layer, parts in gone.items():
        alive = torch.ones(len(teacher.get_submodule(layer).get_parameter("weight")), dtype=torch.bool)
        alive[torch.cat(parts)] = False
        found[layer] = torch.nonzero(alive).flatten()
    return found


@torch.no_grad()
def matched_outputs(model: nn.Module, teacher: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """The same for a pruned model that came without a plan: channels are told by their behaviour.

    A surviving channel still varies over samples and places as the one it was, so each is assigned
    to the unpruned channel it correlates with, one to one (Kuhn's Hungarian method), in order.

    Args:
        model: pruned.
        teacher: unpruned.
        inputs: calibration samples ``[N, …]``.

    Raises:
        UserError: the layers differ, or a channel is like none.
    """
    ours, theirs = ([s.layer for s in find_sites(m, inputs[:2])] for m in (model, teacher))
    if ours != theirs:
        raise UserError("the pruned and the unpruned model are not the same network: their layers differ")
    names = [name for name in ours if len(_weight(model, name)) < len(_weight(teacher, name))]
    seen = _outputs(model, names, inputs), _outputs(teacher, names, inputs)
    found = {}
    for name in names:
        small, large = (
            (x - x.mean(0)) / (x - x.mean(0)).norm(dim=0).clamp_min(1e-12)
            for x in (seen[0][name], seen[1][name])
        )
        alike = (small.T @ large).numpy()
        rows, columns = linear_sum_assignment(alike, maximize=True)
        weakest = float(alike[rows, columns].min())
        if weakest < _ALIKE:
            raise UserError(
                f"layer '{name}': a channel of the pruned model is like none of the unpruned one "
                f"(correlation {weakest:.2f}); give the plan that cut it with --plan"
            )
        found[name] = torch.from_numpy(columns)
    return found


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_submodule(name).get_parameter("weight")


def _outputs(model: nn.Module, names: list[str], inputs: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = []
    for name in names:

        def take(layer: nn.Module, _: object, output: Tensor, name: str = name) -> None:
            last = isinstance(layer, nn.Linear)
            places = (
                output.flatten(2).shape[2]
                if not last and output.ndim > 2
                else output[0].numel() // output.shape[-1]
            )
            at = draw_positions(name, samples=len(output), places=places, wanted=_PLACES, seed=0)
            found[name] = pick_outputs(output, at.to(output.device), last=last).double().cpu()

        handles.append(model.get_submodule(name).register_forward_hook(take))
    try:
        model.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
