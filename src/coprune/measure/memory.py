"""Peak memory of one forward pass: bytes of tensors alive at the worst moment, weights included.

Counted from the tensors themselves, so that the figure is the same on every machine and does not
drown in the hundreds of megabytes a Python process holds anyway. Scratch space inside an operator
is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coprune.errors import setting
from coprune.memory import check_free, free_bytes
from coprune.tracing.forward import Inputs, run, tensors_of
from coprune.tracing.hooks import hooked
from coprune.tracing.modes import evaluating


class _LiveStorages(TorchDispatchMode):
    """Adds up the storages that operators have made and nobody has dropped yet."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.peak = self.made = 0
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
                    self.made += storage.nbytes() * (storage._cdata not in self._live)
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, self.now())
        return result

    def now(self) -> int:
        """Bytes that are alive."""
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        return sum(size for _, size in self._live.values())


def peak_memory(model: nn.Module, example: Inputs) -> int:
    """Bytes of weights, input and activations at the worst moment of one forward pass.

    Args:
        model: evaluated in evaluation mode.
        example: one sample ``[1, …]`` or a batch.
    """
    weights, peak, *_ = _bytes(model, example)
    return weights + peak


def waiting_memory(model: nn.Module, example: Inputs, layers: Iterable[str]) -> tuple[int, int]:
    """Bytes of input and activations when a pass waits in front of a layer, at the worst of them; and ever.

    Args:
        model: evaluated in evaluation mode.
        example: one sample ``[1, …]``.
        layers: in front of which it waits.
    """
    _, peak, _, waiting = _bytes(model, example, layers)
    return waiting, peak


PASS = 1 << 29
"""Bytes that the samples of one pass may take, forward or backward; operators' own scratch takes as much."""


def samples_at_once(model: nn.Module, example: Inputs, most: int, *, backward: bool = False) -> int:
    """Samples of a pass that fit into :data:`PASS`, at most so many.

    Args:
        model: on the CPU.
        example: one sample ``[1, …]``; of several sizes, a usual one.
        most: samples.
        backward: whether all activations are kept for a backward pass.
    """
    _, peak, made, _ = _bytes(model, example)
    return max(1, min(most, PASS // max(1, peak + made if backward else peak)))


@torch.no_grad()
def _bytes(model: nn.Module, example: Inputs, layers: Iterable[str] = ()) -> tuple[int, int, int, int]:
    """Bytes of weights; of what grows with the samples at the worst moment; and of all that is ever made.

    And of what there is in front of some layers, at the worst of them.
    """
    weights, inputs = (
        {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
        for tensors in ([*model.parameters(), *model.buffers()], tensors_of(example))
    )
    met = [0]
    live = _LiveStorages({*weights, *inputs})
    waits = {name: lambda *_: met.append(live.now()) for name in layers}
    with evaluating(model), live, hooked(model, waits, before=True):
        run(model, example)
    given = sum(inputs.values())
    return sum(weights.values()), given + live.peak, live.made, given + max(met)


USUAL = 128
"""Batches up to this size need no check of the memory."""


def check_batches(model: nn.Module, example: Inputs, sizes: Iterable[int], *, name: str, device: str) -> None:
    """Refuse a batch of which a forward pass takes more memory than is free.

    Args:
        model: on the CPU.
        example: one sample ``[1, …]``.
        sizes: samples of the batches.
        name: of the setting that says so.
        device: where they are to run.

    Raises:
        UserError: names the batch, what it takes, and one that fits.
    """
    largest = max(sizes, default=0)
    if largest <= USUAL:
        return
    each = 2 * _bytes(model, example)[1]  # operators' own scratch is not seen
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else free_bytes()
    fits = 2 ** max(0, ((free or 0) // each).bit_length() - 1)
    check_free(largest * each, what=setting(name, largest), free=free, instead=fits)
