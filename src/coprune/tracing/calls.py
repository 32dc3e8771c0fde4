"""Calls on tensors, seen and changed as they are made: the one interceptor of the project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from coprune.errors import UserError

Function = Callable[..., Any]

Call = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]
"""``(function, arguments, named arguments)`` → what the call is to come to."""

CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
"""Names of functions."""

PRODUCTS = CONVOLUTIONS | {"linear", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
"""Names of the functions that dense layers compute with."""


class Intercepted(TorchFunctionMode):
    """Within the context, every call on tensors is made by a function; what *it* calls is not intercepted.

    Args:
        call: makes the call, or another, or none: ``lambda function, args, named: function(*args, **named)``.
    """

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        self._aside = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within the context calls are made as they are: a hook's, which are not the network's."""
        before, self._aside = self._aside, True
        try:
            yield
        finally:
            self._aside = before

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See :class:`torch.overrides.TorchFunctionMode`."""
        return func(*args, **(kwargs or {})) if self._aside else self._call(func, args, kwargs or {})


def name_of(function: Function) -> str:
    """The name under which PyTorch knows a function; nothing where it has none."""
    return getattr(function, "__name__", "")


class _ReachedError(Exception):
    """A forward pass has come to the call that was wanted."""


def convolution_of(layer: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """What a layer's own ``forward`` hands to its convolution, which is not computed.

    Args:
        layer: one that convolves, also with a padding or weights that it makes by itself.
        inputs: ``[N, U, …]``.

    Returns:
        ``input``, ``weight``, ``bias``, ``stride``, ``padding``, as far as they were given.

    Raises:
        UserError: it convolves nothing.
    """
    given: dict[str, Any] = {}

    def stop(function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if name_of(function) not in CONVOLUTIONS:
            return function(*args, **named)
        given.update(zip(("input", "weight", "bias", "stride", "padding"), args, strict=False), **named)
        raise _ReachedError

    try:
        with Intercepted(stop):
            layer.forward(inputs)
    except _ReachedError:
        return given
    raise UserError(f"{type(layer).__name__} is a convolution whose forward convolves nothing")
