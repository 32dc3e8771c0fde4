"""Layers that hide what their units are, replaced by ones that compute the same and can be cut."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass

import torch
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.models.attention import separate_attention
from coprune.models.layout import laid_out
from coprune.models.reparametrised import fold_reparametrised, made_copyable
from coprune.models.standardised import fold_standardised


def made_ready(model: nn.Module) -> nn.Module:
    """The model with its heads apart, its weights computed once and in plain order; changed in place.

    Training from scratch wants neither, so a model is made ready only where it is to be cut.
    """
    return laid_out(fold_standardised(separate_attention(fold_reparametrised(model))))


def ready(model: nn.Module) -> nn.Module:
    """A copy of a user's model to work on: on the CPU, in evaluation mode, made ready.

    Of a model that ``torch.compile`` made, the one it was made of. What it keeps of a pass, such as an
    activation, the copy has without its graph.

    Raises:
        UserError: a TorchScript module, of which nothing can be cut.
    """
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("a TorchScript module cannot be cut; give the nn.Module that it was made of")
    model = made_copyable(model)
    # To a copy that is being made these count as copied: PyTorch copies no tensor with a graph behind it.
    copied: dict[int, object] = {id(t): t.detach().clone() for t in _with_graph(model)}
    return made_ready(copy.deepcopy(model, copied).cpu().eval())


def _with_graph(model: nn.Module) -> Iterator[Tensor]:
    """Every tensor that a model keeps of a pass, such as an activation, with the graph that made it."""
    left: list[object] = [model]
    seen: set[int] = set()
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            if not part.is_leaf:
                yield part
        elif isinstance(part, Mapping):
            left.extend(part.values())
        elif isinstance(part, list | tuple | set | frozenset):
            left.extend(part)
        elif isinstance(part, nn.Module) or (is_dataclass(part) and not isinstance(part, type)):
            left.extend(getattr(part, "__dict__", {}).values())
