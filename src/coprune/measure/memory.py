"""Peak memory of one forward pass: bytes of tensors alive at the worst moment, weights included.

Counted from the tensors themselves, so that the figure is the same on every machine and does not
drown in the hundreds of megabytes a Python process holds anyway. Scratch space inside an operator
is not seen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coprune.forward import Inputs, logits_of, tensors_of
from coprune.measure.mode import evaluating


class _LiveStorages(TorchDispatchMode):
    """Adds up the storages that operators have made and nobody has dropped yet."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.peak = 0
        self._known = known  # weights and input: views of them are nothing new
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


@torch.no_grad()
def peak_memory(model: nn.Module, example: Inputs) -> int:
    """Bytes of weights, input and activations at the worst moment of one forward pass.

    Args:
        model: evaluated in evaluation mode.
        example: one sample ``[1, …]`` or a batch.
    """
    held = {
        t.untyped_storage()._cdata: t.untyped_storage().nbytes()
        for t in [*model.parameters(), *model.buffers(), *tensors_of(example)]
    }
    with evaluating(model), _LiveStorages(set(held)) as live:
        logits_of(model, example)
    return sum(held.values()) + live.peak
