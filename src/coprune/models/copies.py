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
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from coprune.errors import UserError
from coprune.tracing.calls import Function, Intercepted
from coprune.tracing.forward import FAILURES, model_raised

_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
WRAPPED = tuple(dict.fromkeys(_WRAPPERS.values()))
"""What a wrapper calls the module inside."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, without what ``DataParallel``, DDP, ``torch.compile`` and the like put around it."""
    inside = _inside(model)
    return model if inside is None else unwrapped(inside)


def _inside(module: nn.Module) -> nn.Module | None:
    name = _WRAPPERS.get(type(module).__name__)
    return getattr(module, name) if name and type(module).__module__.startswith("torch.") else None


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, its wrappers taken off at all depths; the model is left as it is.

    Of an activation that it keeps the copy has the values without the graph. Functions that know the model
    (hooks, a patched ``forward``) know the copy instead. What cannot be copied (an open file) is shared.

    Raises:
        UserError: the model's own ``__deepcopy__`` fails or hands back its own parts.
    """
    model = unwrapped(model)
    memo: dict[int, Any] = {}
    with Intercepted(_values_alone):
        try:
            made = _deep(model, memo)
        except FAILURES:
            memo = _uncopyable(model)
            try:
                made = _deep(model, memo)
            except FAILURES as cause:
                raise UserError(
                    f"this {type(model).__name__} cannot be copied ({model_raised(model, cause)}), and the "
                    "one given must stay as it is; give one that copy.deepcopy can copy"
                ) from cause
    shared = {id(p) for p in made.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in shared:
            raise UserError(
                f"a copy of this {type(model).__name__} has the same '{name}', so that the one given would "
                "change; its __deepcopy__ must copy parameters"
            )
    for module in model.modules():
        if _inside(module) is None and isinstance(memo.get(id(module)), nn.Module):
            _follow(module, memo[id(module)], memo)
    return made


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state as it is now, to go back to."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def put_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the values of a state dict, in place.

    Args:
        model: of this architecture.
        tensors: of all its parameters and buffers.
    """
    state = OrderedDict(tensors)
    # Versions of its modules' formats, without which some (MNASNet) refuse what they wrote themselves.
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(state)


def _values_alone(function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """``deepcopy`` takes values alone of a tensor with a graph, which PyTorch refuses."""
    if function is Tensor.__deepcopy__ and not args[0].is_leaf:
        return args[0].detach().clone()
    return function(*args, **named)


def _deep(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    # The innermost first: a wrapper counts as copied once what is inside is.
    for module in reversed(list(model.modules())):
        inside = _inside(module)
        if inside is not None:
            memo[id(module)] = copy.deepcopy(inside, memo)
    return copy.deepcopy(model, memo)


_RECREATED: dict[type, Any] = {type(make()): make for make in (threading.Lock, threading.RLock)}


def _uncopyable(model: nn.Module) -> dict[int, Any]:
    """What modules hold that no copy can be made of, as copies of itself; locks, which would block, anew."""
    found: dict[int, Any] = {}
    parts = {id(module): module for module in model.modules()}
    for module in model.modules():
        for name in vars(module).keys() - {"_parameters", "_buffers", "_modules"}:
            value = vars(module)[name]
            try:
                copy.deepcopy(value, dict(parts))
            except FAILURES:
                found[id(value)] = _RECREATED[type(value)]() if type(value) in _RECREATED else value
    return found


def _follow(module: nn.Module, made: nn.Module, memo: dict[int, Any]) -> None:
    """Give a module's copy the slots, and hooks and functions that know the copy."""
    for kind in type(module).__mro__:
        for slot in [s for s in getattr(kind, "__slots__", ()) if hasattr(module, s)]:
            setattr(made, slot, copy.deepcopy(getattr(module, slot), memo))
    for name, value in vars(made).items():
        if isinstance(value, types.FunctionType):
            vars(made)[name] = _rebound(value, memo)
        elif name.endswith("_hooks") and isinstance(value, dict):
            value.update({key: _rebound(hook, memo) for key, hook in value.items()})


def _rebound(value: Any, memo: dict[int, Any]) -> Any:
    """A part of the model as that of the copy, and so what knows one: closures, methods, lists of them."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, types.FunctionType) and value.__closure__:
        cells = tuple(types.CellType() for _ in value.__closure__)
        made = types.FunctionType(
            value.__code__, value.__globals__, value.__name__, value.__defaults__, cells
        )
        made.__kwdefaults__, made.__dict__ = value.__kwdefaults__, dict(value.__dict__)
        memo[id(value)] = made  # before its cells: it may know itself
        for cell, known in zip(cells, value.__closure__, strict=True):
            try:
                cell.cell_contents = _rebound(known.cell_contents, memo)
            except ValueError:  # not assigned yet
                continue
        return made
    if isinstance(value, types.MethodType) and id(value.__self__) in memo:
        return types.MethodType(value.__func__, memo[id(value.__self__)])
    if isinstance(value, list | tuple) and any(id(part) in memo for part in value):
        return type(value)(_rebound(part, memo) for part in value)
    return value
