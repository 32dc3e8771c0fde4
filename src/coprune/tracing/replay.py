"""Passes of almost the same network again: what lies in front of the first changed layer is not repeated.

The products of dense layers are kept, which cost most, and the outputs of the modules that hold them, so that
norms and activations need not run either. A product is known by its layer and by how often that has run in
this pass. So nothing has to be known of how the network is built, and nothing is mixed up when it makes other
calls the second time, as one that keeps its tables of positions does. A module that is passed over whole may
have left something for a later one behind its back. So in a network that holds more tensors after a pass than
before none is, and elsewhere it is believed once a pass without the modules came to the bits of one with
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from coprune.layers import is_convolution, is_linear
from coprune.tracing.calls import PRODUCTS, Function, Intercepted, name_of
from coprune.tracing.forward import Inputs, copied, run, tensors_of
from coprune.tracing.hooks import hooked

MEMORY = 1 << 30
"""Bytes that are kept at most. The first layers of a pass are, since they are spared most often."""

_NONE: Mapping[str, Any] = MappingProxyType({})

_Run = tuple[str, int]
"""(layer, how often it had run before in this pass)."""


@dataclass(frozen=True)
class _Block:
    """A module's run.

    Attributes:
        output: a tree of tensors.
        begun: how many runs of dense layers had begun when it ended.
        runs: how often each of these had run.
    """

    output: Any
    begun: int
    runs: Mapping[str, int]


@dataclass
class _Known:
    """What a batch's first pass leaves.

    Attributes:
        products: of the runs that are kept, in the order in which they began.
        order: when each run began.
        blocks: what is kept of modules that hold others and ran once.
    """

    products: dict[_Run, Tensor] = field(default_factory=dict)
    order: dict[_Run, int] = field(default_factory=dict)
    blocks: dict[str, _Block] = field(default_factory=dict)

    def before(self, layers: Iterable[str]) -> int:
        """How many runs began before any of some layers did."""
        # A layer that was never entered is used in some other way, at a moment that is not known.
        return min((self.order.get((layer, 0), 0) for layer in layers), default=0)

    def in_front(self, upto: int) -> dict[str, _Block]:
        """Modules that had ended when so many runs had begun, without those inside of them."""
        ended = {n: b for n, b in self.blocks.items() if 0 < b.begun <= upto}
        return {n: b for n, b in ended.items() if not any(n.startswith(f"{outer}.") for outer in ended)}


class _Pass:
    """One pass that notes products, as long as there is room, or hands out those of the first runs.

    Copies of them, since somebody may work on them in place.
    """

    def __init__(self, known: _Known, *, upto: int = 0, room: int = 0) -> None:
        self._known, self._upto = known, upto
        self._room = {"products": room - room // 2, "blocks": room // 2}
        self._runs: Counter[str] = Counter()
        self._entered: _Run | None = None
        self._ended: set[str] = set()

    def output(self, model: nn.Module, inputs: Inputs, *, over: Mapping[str, _Block] = _NONE) -> Any:
        """Of the model on a batch.

        Args:
            model: as it is now.
            inputs: the batch.
            over: modules that do not run; what they put out is known.
        """
        modules = dict(model.named_modules())
        dense = [n for n, m in modules.items() if is_convolution(m) or is_linear(m)]
        behind = dict.fromkeys(dense, self._leave)
        if self._room["blocks"]:
            holding = [n for n, m in modules.items() if n and n not in behind and next(m.children(), None)]
            behind |= {name: partial(self._end, name) for name in holding}
        entered = hooked(model, {name: partial(self._enter, name) for name in dense}, before=True)
        with ExitStack() as passed_over:
            for name, block in over.items():
                passed_over.enter_context(_instead(modules[name], partial(self._pass_over, block)))
            with entered, hooked(model, behind), Intercepted(self._call):
                return run(model, copied(inputs))

    def _end(self, name: str, _: nn.Module, __: object, output: Any) -> None:
        ran_before = name in self._ended
        self._ended.add(name)
        leaves = tree_leaves(output)
        size = sum(t.untyped_storage().nbytes() for t in leaves if isinstance(t, Tensor))
        if ran_before or not all(isinstance(t, Tensor | None) for t in leaves):
            self._known.blocks.pop(name, None)
        elif size <= self._room["blocks"]:
            self._room["blocks"] -= size
            kept = tree_map_only(Tensor, Tensor.clone, output)
            self._known.blocks[name] = _Block(kept, len(self._known.order), dict(self._runs))

    def _pass_over(self, block: _Block, *_: Any, **__: Any) -> Any:
        self._runs = Counter(block.runs)
        return tree_map_only(Tensor, Tensor.clone, block.output)

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
        if size <= self._room["products"]:
            self._room["products"] -= size
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
        self._sure: dict[frozenset[str], bool] = {}

    def first(self) -> Iterator[tuple[Inputs, Any]]:
        """Every batch, and what the unchanged model hands back; before any other pass."""
        before = _held(self._model)  # alive, so that no number is given again
        for x, known in self._batches:
            yield x, _Pass(known, room=self._room).output(self._model, x)
        if not {id(t) for t in _held(self._model)} <= {id(t) for t in before}:
            for _, known in self._batches:
                known.blocks.clear()

    def again(self, changed: Iterable[str]) -> Iterator[tuple[Inputs, Any]]:
        """Every batch, and what the model as it is now hands back.

        Args:
            changed: the dense layers that are not what they were; nothing else may be.
        """
        names = list(changed)
        for x, known in self._batches:
            yield x, self._again(x, known, known.before(names))

    def _again(self, x: Inputs, known: _Known, upto: int) -> Any:
        over = known.in_front(upto)
        which = frozenset(over)
        if over and self._sure.get(which, True):
            try:
                output = _Pass(known, upto=upto).output(self._model, x, over=over)
            except Exception:  # whatever a later module raises that misses what one in front has left
                self._sure[which] = False
            else:
                if which in self._sure:
                    return output
                whole = _Pass(known, upto=upto).output(self._model, x)
                self._sure[which] = _same(output, whole)
                return whole
        return _Pass(known, upto=upto).output(self._model, x)


def _held(model: nn.Module) -> list[Tensor]:
    """Tensors that modules hold in attributes of their own."""
    registered = ("_parameters", "_buffers", "_modules")
    own = ({k: v for k, v in vars(m).items() if k not in registered} for m in model.modules())
    return [tensor for attributes in own for tensor in tensors_of(attributes)]


def _same(one: Any, other: Any) -> bool:
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within the context a module runs something else."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
