"""Functions in front of or behind a model's layers while it runs: all forward hooks of the project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

Recorded = dict[str, list[Tensor]]
"""Module → what it handed on, an entry a run of it."""

Hook = Callable[..., Any]
"""``(layer, inputs)`` in front of a layer, ``(layer, inputs, output)`` behind it; what it hands back, if
anything, takes the place of the inputs or of the output. Told a name with ``functools.partial``."""


@contextmanager
def hooked(
    model: nn.Module,
    hooks: Mapping[str, Hook] | Iterable[tuple[str, Hook]],
    *,
    before: bool = False,
    always: bool = False,
    named: bool = False,
) -> Iterator[None]:
    """Within the context, functions run at named layers whenever those run.

    Args:
        model: left as it was behind the context.
        hooks: layer's name → function; pairs where a layer has several, which run in their order.
            ``""`` is the model itself.
        before: in front of the layers rather than behind them.
        always: also when the layer raises; its output is None then.
        named: the functions are given keyword inputs too, as a dict behind the others.
    """
    pairs = hooks.items() if isinstance(hooks, Mapping) else hooks
    with ExitStack() as registered:
        for name, hook in pairs:
            layer = model.get_submodule(name)
            registered.enter_context(
                layer.register_forward_pre_hook(hook, with_kwargs=named)
                if before
                else layer.register_forward_hook(hook, with_kwargs=named, always_call=always)
            )
        yield


@contextmanager
def recorded(model: nn.Module, names: Iterable[str]) -> Iterator[Recorded]:
    """Within the context, every forward pass leaves what these modules hand on; clear it between passes.

    Args:
        model: gets hooks.
        names: of its modules; of a tuple the first tensor counts.
    """
    found: Recorded = {}

    def keep(name: str, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            found.setdefault(name, []).append(first)

    with hooked(model, {name: partial(keep, name) for name in names}):
        yield found
