"""Memory and time that building a model may take, by what its weights file holds.

A description is a few bytes and may ask for anything. What was cut has as many tensors as before, and not
a four-hundredth of the values: a model that is larger than that by far is none that the weights came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coprune.errors import UserError
from coprune.tracing.forward import FAILURES

_BYTES, _TIMES = 1 << 28, 400
_TENSORS, _EACH = 1_000, 16


class _TooLarge(Exception):  # noqa: N818
    """More than the weights file can be part of."""


class _Bounded(TorchDispatchMode):
    """Counts what is made; stops before it is made where that can be told without making it."""

    def __init__(self, header: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._bytes = max(_BYTES, _TIMES * sum(t.nbytes for t in header.values()))
        self._tensors = _TENSORS + _EACH * len(header)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if not any(isinstance(part, Tensor) for part in tree_leaves((args, named))):
            self._tensors -= 1
            self._bytes -= _bytes_of(func(*args, **{**named, "device": "meta"}))
        made = func(*args, **named)
        if min(self._tensors, self._bytes, self._bytes - _bytes_of(made)) < 0:
            raise _TooLarge
        return made


def _bytes_of(made: Any) -> int:
    """Of the largest tensor; views count as what they are views of."""
    found = (part.untyped_storage().nbytes() for part in tree_leaves(made) if isinstance(part, Tensor))
    return max(found, default=0)


def built_within(header: Mapping[str, Tensor], make: Callable[[], nn.Module], *, where: str) -> nn.Module:
    """Build a model if the weights can be of it: first without memory (on the meta device), then as it is.

    Args:
        header: of the weights file, see :func:`coprune.store.tensors.read_header`.
        make: builds it.
        where: what the message begins with.

    Raises:
        UserError: it is larger than what the weights can be of; what ``make`` raises.
    """
    try:
        try:
            with _Bounded(header), torch.device("meta"):
                make()
        except FAILURES:
            # Some look at values while they are built, and some refuse: both are seen with values.
            with _Bounded(header):
                return make()
        return make()
    except _TooLarge as cause:
        raise UserError(
            f"{where}: what it describes is far larger than what its weights can be of; restore model.json "
            "and config.json"
        ) from cause
