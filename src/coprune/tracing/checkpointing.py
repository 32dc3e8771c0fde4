"""Gradient checkpointing (``torch.utils.checkpoint``), switched off while coprune calls a model.

It runs parts of a model a second time inside the backward pass. That second pass meets neither the hooks nor
the modes of the first (a teacher's hidden outputs, no dropout), and tracing sees nothing of a reentrant one.
Without it the same numbers come out, from more memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint as theirs

VERSIONS = ((2, 6), (2, 15))
"""The first version of PyTorch that is known, and the first that is not."""


class _Plainly:
    """In the place of ``CheckpointFunction``, the reentrant form: the function is called."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        global _passed
        _passed += 1
        return function(*args)


def _around(*_: Any, **__: Any) -> Iterator[None]:
    """In the place of what PyTorch does before and after the function, without reentrance."""
    global _passed
    _passed += 1
    yield


# What ``checkpoint`` looks up when it is called: it may have been imported by name.
_OURS: dict[str, Any] = {
    "CheckpointFunction": _Plainly,
    "_checkpoint_without_reentrant_generator": _around,
    "_checkpoint_without_reentrant_generator_impl": _around,
}
_lock = threading.Lock()
_depth = _passed = 0
_plain: dict[str, Any] = {}


@contextmanager
def unchecked() -> Iterator[None]:
    """Within the context gradient checkpointing is off, whoever asks for it; contexts may overlap."""
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _plain.update({name: vars(theirs)[name] for name in _OURS if name in vars(theirs)})
            vars(theirs).update({name: _OURS[name] for name in _plain})
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                vars(theirs).update(_plain)


def passed_over() -> int:
    """How many times so far a model asked for it in vain."""
    return _passed
