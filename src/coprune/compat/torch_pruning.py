"""Torch-Pruning: its importance scores; the one place that touches it.

Shapes: ``U`` units, ``S`` channels of a unit in one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency import Dependency, Group, Node

from coprune.errors import UserError
from coprune.layers import Side

SUPPORTED = ((1, 6), (1, 7))
"""The first version that is known, and the first that is not; pyproject.toml pins the same."""


def check_version() -> None:
    """Refuse a Torch-Pruning whose internals are not known.

    Raises:
        UserError: with the command that installs one that is.
    """
    found = version("torch-pruning")
    first, beyond = (".".join(map(str, part)) for part in SUPPORTED)
    if not SUPPORTED[0] <= tuple(int(part) for part in found.split(".")[:2]) < SUPPORTED[1]:
        raise UserError(
            f"torch-pruning {found} is installed, and coprune knows {first} up to, not including, {beyond}; "
            f"pip install 'torch-pruning>={first},<{beyond}'"
        )


SCORERS: Mapping[str, Callable[[], Callable[[Group], Tensor | None]]] = {
    "magnitude": partial(tp.importance.GroupMagnitudeImportance, p=1),
    "magnitude_l2": partial(tp.importance.GroupMagnitudeImportance, p=2),
    "bn_scale": tp.importance.BNScaleImportance,
    "fpgm": tp.importance.FPGMImportance,
    "lamp": tp.importance.LAMPImportance,
    "taylor": tp.importance.GroupTaylorImportance,
    "hessian": tp.importance.GroupHessianImportance,
}
"""Kind → one of Torch-Pruning's classes with its defaults, which is how its users make it."""


def score(kind: str, shares: Iterable[tuple[nn.Module, Side, Tensor]]) -> Tensor:
    """What a class of Torch-Pruning says of a group's units.

    Args:
        kind: one of :data:`SCORERS`.
        shares: layers of the group, in the order in which they run, the side of them that is meant, and the
            channels of every unit there, ``[U, S]``.

    Returns:
        ``[U]`` float32; empty where the class has nothing to read.
    """
    check_version()
    group, pruners = Group(), tp.DependencyGraph()
    units = 0
    for layer, side, channels in shares:
        pruner, node = pruners.get_pruner_of_module(layer), Node(layer, grad_fn=None)
        handler = pruner.prune_in_channels if side == "input" else pruner.prune_out_channels
        group.add_dep(Dependency(handler, handler, source=node, target=node), channels.flatten().tolist())
        units = len(channels)
        group[len(group) - 1].root_idxs = torch.arange(units).repeat_interleave(channels.shape[1]).tolist()
    found = SCORERS[kind]()(group)
    # The classes make room for as many units as the first layer has channels.
    return torch.empty(0) if found is None else found[:units]
