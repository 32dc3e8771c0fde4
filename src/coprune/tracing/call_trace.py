"""Values inside a forward pass, found and reached by the running number of the call that makes them.

A network's forward pass makes the same calls whenever it is run, before and after surgery. So a value
seen once (an operand of a residual sum, say) can be reached again in another pass, or in the pass of
a smaller copy, without tracing the code.

Calls are numbered anew from every dense layer on. Not all that lies between two of them is the same for
all inputs: a transformer makes its attention mask in other ways when a batch has no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from coprune.layers import is_convolution, is_linear
from coprune.tracing.calls import Function, Intercepted, name_of
from coprune.tracing.forward import tensors_of
from coprune.tracing.hooks import hooked

Number = tuple[int, int]
"""(dense layers that were entered before, running number of the call since)."""

Place = tuple[Number, int]
"""(number of the call, index among the tensors it hands back)."""

_ADDITIONS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})

_RECTIFIERS = frozenset({"relu", "relu_", "relu6"})


def is_addition(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call adds two tensors of one shape: a residual sum, not a bias or a scalar."""
    if name_of(func) not in _ADDITIONS or len(args) != 2 or kwargs.get("alpha", 1) != 1:
        return False
    return all(isinstance(a, Tensor) and a.ndim > 1 for a in args) and args[0].shape == args[1].shape


def is_rectifier(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call makes all values below 0 the same."""
    name = name_of(func)
    if name in ("hardtanh", "hardtanh_"):
        return kwargs.get("min_val", args[1] if len(args) > 1 else -1.0) >= 0
    return name in _RECTIFIERS


@dataclass(frozen=True)
class Call:
    """One call on tensors. Values are numbered; a tensor changed in place is a new value.

    Attributes:
        number: of the call within the pass.
        name: of the function.
        layer: the watched module that made it, if any.
        reads: values it was given.
        makes: values it made, new tensors first.
        addition: whether it is a residual sum.
        rectifier: whether it makes all values below 0 the same.
    """

    number: Number
    name: str
    layer: str | None
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    addition: bool
    rectifier: bool


class _Numbered(Intercepted):
    """Numbers the calls of a pass; those made aside do not count.

    Attributes:
        number: of the next call. Where several passes take turns, each has its own to be put back.
    """

    def __init__(self, called: Callable[[Number, Function, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__(self._counted)
        self.number: Number = (0, 0)
        self._called = called

    def _counted(self, function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        number = self.number
        self.number = (number[0], number[1] + 1)
        return self._called(number, function, args, named)

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Within the context the calls of the model's pass are numbered."""

        def enter(*_: Any) -> None:
            self.number = (self.number[0] + 1, 0)

        dense = {n: enter for n, m in model.named_modules() if is_convolution(m) or is_linear(m)}
        with hooked(model, dense, before=True), self:
            yield


class Record(_Numbered):
    """Notes every call of a forward pass. Keeps all its tensors alive: for one small example.

    Attributes:
        calls: in their order.
        places: value → where it was made first.
        layer: the module that runs, for the calls that follow.
    """

    def __init__(self) -> None:
        super().__init__(self._note)
        self.calls: list[Call] = []
        self.places: dict[int, Place] = {}
        self.layer: str | None = None
        self._value: dict[int, int] = {}
        self._held: list[Tensor] = []  # so that no tensor takes the identity of a dead one

    def _value_of(self, tensor: Tensor) -> int:
        return self._value[id(tensor)] if id(tensor) in self._value else self._renew(tensor)

    def _renew(self, tensor: Tensor) -> int:
        self._held.append(tensor)
        self._value[id(tensor)] = len(self._held)
        return len(self._held)

    def _note(self, number: Number, function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        given = tensors_of((args, named))
        reads = tuple(self._value_of(t) for t in given)
        versions = [t._version for t in given]
        addition, rectifier = is_addition(function, args, named), is_rectifier(function, args, named)
        result = function(*args, **named)
        returned = tensors_of(result)
        changed = [t for t, v in zip(given, versions, strict=True) if t._version != v]
        # A call that hands back its argument untouched (dropout in evaluation) makes nothing new.
        fresh = [t for t in returned if all(t is not g for g in given)]
        if fresh or changed:
            makes = tuple(self._renew(t) for t in (*fresh, *changed))
            for index, tensor in enumerate(returned):
                self.places.setdefault(self._value[id(tensor)], (number, index))
            self.calls.append(Call(number, name_of(function), self.layer, reads, makes, addition, rectifier))
        return result


class Taps(_Numbered):
    """Hands the values made at given places to their takers as they appear, and keeps nothing.

    Attributes:
        wanted: whether anybody takes anything.
    """

    def __init__(self, takers: Mapping[Place, list[Callable[[Tensor], None]]]) -> None:
        super().__init__(self._hand_out)
        self._takers = takers
        self.wanted = bool(takers)
        self._calls = {number for number, _ in takers}

    def _hand_out(
        self, number: Number, function: Function, args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        result = function(*args, **named)
        if number in self._calls:
            for index, tensor in enumerate(tensors_of(result)):
                for take in self._takers.get((number, index), ()):
                    take(tensor)
        return result
