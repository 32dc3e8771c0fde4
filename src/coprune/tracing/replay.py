"""Passes of almost the same network again: what lies in front of the first changed layer is not repeated.

Only the products of dense layers are kept, which cost most; all else runs as it always does. A product is
known by its layer and by how often that has run in this pass. So nothing has to be known of how the network
is built, and nothing is mixed up when it makes other calls the second time, as one that keeps its tables of
positions does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from coprune.layers import is_convolution, is_linear
from coprune.tracing.calls import PRODUCTS, Function, Intercepted, name_of
from coprune.tracing.forward import Inputs, copied, run
from coprune.tracing.hooks import hooked

MEMORY = 1 << 30
"""Bytes that are kept at most. The first layers of a pass are, since they are spared most often."""

_Run = tuple[str, int]
"""(layer, how often it had run before in this pass)."""


@dataclass
class _Known:
    """What a batch's first pass leaves.

    Attributes:
        products: of the runs that are kept, in the order in which they began.
        order: when each run began.
    """

    products: dict[_Run, Tensor] = field(default_factory=dict)
    order: dict[_Run, int] = field(default_factory=dict)

    def before(self, layers: Iterable[str]) -> int:
        """How many runs began before any of some layers did."""
        # A layer that was never entered is used in some other way, at a moment that is not known.
        return min((self.order.get((layer, 0), 0) for layer in layers), default=0)


class _Pass:
    """One pass that notes products, as long as there is room, or hands out those of the first runs.

    Copies of them, since somebody may work on them in place.
    """

    def __init__(self, known: _Known, *, upto: int = 0, room: int = 0) -> None:
        self._known, self._upto, self._room = known, upto, room
        self._runs: Counter[str] = Counter()
        self._entered: _Run | None = None

    def output(self, model: nn.Module, inputs: Inputs) -> Any:
        """Of the model on a batch."""
        dense = [n for n, m in model.named_modules() if is_convolution(m) or is_linear(m)]
        entered = hooked(model, {name: partial(self._enter, name) for name in dense}, before=True)
        with entered, hooked(model, dict.fromkeys(dense, self._leave)), Intercepted(self._call):
            return run(model, copied(inputs))

    def _enter(self, name: str, *_: Any) -> None:
        self._entered = (name, self._runs[name])
        self._runs[name] += 1
        self._known.order.setdefault(self._entered, len(self._known.order))

    def _leave(self, *_: Any) -> None:
        self._entered = None

    def _call(self, function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        run = self._entered
        if run is None or name_of(function) not in PRODUCTS:
            return function(*args, **named)
        self._entered = None
        if self._known.order[run] < self._upto and run in self._known.products:
            return self._known.products[run].clone()
        product = function(*args, **named)
        size = product.untyped_storage().nbytes()
        if size <= self._room:
            self._room -= size
            self._known.products[run] = product.clone()
        return product


class Replay:
    """The passes of some batches through a model, in evaluation mode and without gradients.

    Args:
        model: unpruned.
        batches: samples ``[N, …]``.
        memory: bytes that are kept at most.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Inputs], *, memory: int = MEMORY) -> None:
        self._model = model
        self._batches = [(batch, _Known()) for batch in batches]
        self._room = memory // max(1, len(self._batches))

    def first(self) -> Iterator[tuple[Inputs, Any]]:
        """Every batch, and what the unchanged model hands back; before any other pass."""
        for x, known in self._batches:
            yield x, _Pass(known, room=self._room).output(self._model, x)

    def again(self, changed: Iterable[str]) -> Iterator[tuple[Inputs, Any]]:
        """Every batch, and what the model as it is now hands back.

        Args:
            changed: the dense layers that are not what they were; nothing else may be.
        """
        names = list(changed)
        for x, known in self._batches:
            yield x, _Pass(known, upto=known.before(names)).output(self._model, x)
