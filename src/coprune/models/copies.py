"""A copy of a user's model that is a model of its own: nothing in it refers to the one it was made of.

``copy.deepcopy`` alone leaves functions as they are, so a hook or a patched ``forward`` whose closure knows
the model goes on working on the original; it stops at activations with a graph and at what no copy can be
made of, such as a lock; and it passes over ``__slots__``. Here, wrappers that only say how a model is run
(``DataParallel``, ``torch.compile``, activation checkpointing) are taken off as well.
"""

from __future__ import annotations

import copy
import threading
import types
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

from coprune.errors import UserError
from coprune.tracing.forward import FAILURES, said

WRAPPED = ("_orig_mod", "module", "_checkpoint_wrapped_module")
"""What a wrapper calls the module inside."""

_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, without what ``DataParallel``, DDP, ``torch.compile`` and the like put around it."""
    inside = _inside(model)
    return model if inside is None else unwrapped(inside)


def _inside(module: nn.Module) -> nn.Module | None:
    name = _WRAPPERS.get(type(module).__name__)
    ours = type(module).__module__.startswith("torch.")
    return getattr(module, name) if name and ours else None


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, its wrappers taken off at all depths; the model is left as it is.

    Of an activation that it keeps the copy has the values without the graph. Functions that know the model
    (hooks, a patched ``forward``) know the copy instead. What cannot be copied (an open file) is shared.

    Raises:
        UserError: the model's own ``__deepcopy__`` fails or hands back its own parts.
    """
    model = unwrapped(model)
    # To a copy that is being made these count as copied: PyTorch copies no tensor with a graph behind it.
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in _with_graph(model)}
    try:
        made = _deep(model, memo)
    except FAILURES:
        memo = {id(t): t.detach().clone() for t in _with_graph(model)} | _uncopyable(model)
        try:
            made = _deep(model, memo)
        except FAILURES as cause:
            raise UserError(
                f"this {type(model).__name__} cannot be copied ({said(model, cause)}), and the one given "
                "must stay as it is; give one that copy.deepcopy can copy"
            ) from cause
    shared = {id(p) for p in made.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in shared:
            raise UserError(
                f"a copy of this {type(model).__name__} has the same '{name}', so that the one given would "
                "change; its __deepcopy__ must copy parameters"
            )
    for module in model.modules():
        _follow(module, memo)
    return made


def _deep(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    # The innermost first: a wrapper counts as copied once what is inside is.
    for module in reversed(list(model.modules())):
        inside = _inside(module)
        if inside is not None:
            memo[id(module)] = copy.deepcopy(inside, memo)
    return copy.deepcopy(model, memo)


_ANEW: dict[type, Any] = {type(make()): make for make in (threading.Lock, threading.RLock)}


def _uncopyable(model: nn.Module) -> dict[int, Any]:
    """What modules hold that no copy can be made of, as copies of itself; locks, which would block, anew."""
    found: dict[int, Any] = {}
    kept = {id(t): t for t in _with_graph(model)} | {id(module): module for module in model.modules()}
    for module in model.modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value, dict(kept))
            except FAILURES:
                found[id(value)] = _ANEW.get(type(value), lambda value=value: value)()
    return found


def _follow(module: nn.Module, memo: dict[int, Any]) -> None:
    """Give a module's copy the slots, and hooks and functions that know the copy."""
    made = memo.get(id(module))
    if not isinstance(made, nn.Module) or _inside(module) is not None:
        return
    for kind in type(module).__mro__:
        for slot in [s for s in getattr(kind, "__slots__", ()) if hasattr(module, s)]:
            setattr(made, slot, copy.deepcopy(getattr(module, slot), memo))
    for name, value in list(vars(made).items()):
        if isinstance(value, types.FunctionType):
            vars(made)[name] = _bound(value, memo)
        elif name.endswith("_hooks") and isinstance(value, dict):
            value.update({key: _bound(hook, memo) for key, hook in value.items()})


def _bound(function: Any, memo: dict[int, Any]) -> Any:
    """A function with copies in the place of the parts of the model that its closure knows."""
    if not isinstance(function, types.FunctionType) or not function.__closure__:
        return function
    if id(function) in memo:
        return memo[id(function)]
    cells = [types.CellType() for _ in function.__closure__]
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
    made.__kwdefaults__, made.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    memo[id(function)] = made  # before its cells: it may know itself
    for cell, known in zip(cells, function.__closure__, strict=True):
        try:
            value = known.cell_contents
        except ValueError:  # not assigned yet
            continue
        cell.cell_contents = _copy_of(value, memo)
    return made


def _copy_of(value: Any, memo: dict[int, Any]) -> Any:
    """A part of the model as that of the copy; what is no part of it as it is."""
    if isinstance(value, types.FunctionType):
        return _bound(value, memo)
    if isinstance(value, types.MethodType) and id(value.__self__) in memo:
        return types.MethodType(value.__func__, memo[id(value.__self__)])
    if isinstance(value, list | tuple) and any(id(part) in memo for part in value):
        return type(value)(_copy_of(part, memo) for part in value)
    return memo.get(id(value), value)


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
