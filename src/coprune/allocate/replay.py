"""Passes of almost the same network again: what lies in front of the first changed layer is not repeated.

Only what costs most is kept (products and convolutions), in the order in which it was computed; all else
runs as it always does. So nothing has to be known of how the network is built.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from coprune.forward import Inputs, copied, logits_of

MEMORY = 1 << 30
"""Bytes that are kept at most. The first calls of a pass are, since they are spared most often."""

_COSTLY = frozenset(
    {
        *(f"conv{n}d" for n in (1, 2, 3)),
        *(f"conv_transpose{n}d" for n in (1, 2, 3)),
        *("linear", "bilinear", "matmul", "__matmul__", "bmm", "baddbmm", "addmm", "einsum"),
        "scaled_dot_product_attention",
    }
)


class _Remembering(TorchFunctionMode):
    """Notes the results of costly calls, or hands out noted ones up to a number."""

    def __init__(self, made: list[Tensor | None], fragile: set[int], *, upto: int, room: int) -> None:
        super().__init__()
        self._made, self._fragile, self._upto, self._room = made, fragile, upto, room
        self.calls = 0
        self.versions: list[tuple[int, Tensor, int]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") not in _COSTLY:
            return func(*args, **(kwargs or {}))
        number = self.calls
        self.calls += 1
        if number < self._upto:
            known = self._made[number]
            if known is not None:
                return known.clone() if number in self._fragile else known
        result = func(*args, **(kwargs or {}))
        if self._room > 0:
            self._note(number, result)
        return result

    def _note(self, number: int, result: Any) -> None:
        into = isinstance(result, Tensor)
        size = result.untyped_storage().nbytes() if into else 0
        if not into or size > self._room:
            self._made.append(None)
            self._room = self._room if into else 0
            return
        self._room -= size
        if number in self._fragile:
            self._made.append(result.clone())
            return
        self._made.append(result)
        self.versions.append((number, result, result._version))


class Replay:
    """The passes of some batches through a model, in evaluation mode and without gradients.

    Args:
        model: unpruned.
        batches: samples ``[N, …]``.
        watched: layers that may be changed later.
        memory: bytes that are kept at most.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Inputs], *, watched: Iterable[str], memory: int = MEMORY
    ) -> None:
        self._model, self._batches = model, list(batches)
        self._fragile: set[int] = set()  # results that somebody works on in place
        self._made: list[list[Tensor | None]] = []
        self._entered: list[dict[str, int]] = []
        room = memory // max(1, len(self._batches))
        names = list(watched)
        self.logits = torch.cat([self._first(batch, names, room) for batch in self._batches])
        """Of the unchanged model, ``[N, C]``."""

    def _first(self, batch: Inputs, watched: list[str], room: int) -> Tensor:
        made: list[Tensor | None] = []
        entered: dict[str, int] = {}
        mode = _Remembering(made, self._fragile, upto=0, room=room)

        def enter(name: str) -> None:
            entered.setdefault(name, mode.calls)

        handles = [
            self._model.get_submodule(name).register_forward_pre_hook(lambda m, i, name=name: enter(name))
            for name in watched
        ]
        try:
            with mode:
                logits = logits_of(self._model, copied(batch))
        finally:
            for handle in handles:
                handle.remove()
        for number, result, version in mode.versions:
            if result._version != version:
                self._fragile.add(number)
                made[number] = None
        self._made.append(made)
        self._entered.append(entered)
        return logits

    def again(self, changed: Iterable[str]) -> Tensor:
        """Logits ``[N, C]`` of the model as it is now.

        Args:
            changed: the watched layers that are not what they were; nothing else may be.
        """
        names, parts = list(changed), []
        for batch, made, entered in zip(self._batches, self._made, self._entered, strict=True):
            # A layer that was never entered is used in some other way, at a moment that is not known.
            upto = min((entered.get(name, 0) for name in names), default=0)
            with _Remembering(made, self._fragile, upto=min(upto, len(made)), room=0):
                parts.append(logits_of(self._model, copied(batch)))
        return torch.cat(parts)
