"""Whole numbers of a forward pass that know where they come from: a tensor's shape, or a module's attribute.

A view or a split that is told a size by ``x.shape`` follows when channels go. One that is told it by an
attribute (``self.hidden``) follows when the attribute is cut along; one with the number in the code cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from coprune.layers import has_channels


class _Known(int):
    """Unequal where a subclass does not call it equal."""

    def __ne__(self, other: object) -> bool:
        return not self == other


class Follows(_Known):
    """A number that comes of a tensor's shape, as does what is computed with it.

    Attributes:
        met: told of an attribute that the number is compared with (``assert x.shape[1] == self.channels``);
            what is computed tells nobody.
    """

    met: Callable[[Attribute], None] | None = None
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Attribute) and self.met is not None and int(self) == int(other):
            self.met(other)
        return int(self) == other


class Attribute(_Known):
    """An attribute of a module, as it is: what is computed with it is a number like any other.

    Attributes:
        layer: the module's name.
        name: of the attribute; of one of a list ``name.3``.
    """

    layer: str
    name: str
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return other == self if isinstance(other, Follows) else int(self) == other

    @classmethod
    def of(cls, value: int, layer: str, name: str) -> Attribute:
        """A value that knows whose it is."""
        made = cls(value)
        made.layer, made.name = layer, name
        return made


def _computed(operation: str) -> Any:
    plain = getattr(int, operation)

    def compute(self: int, *others: int) -> Any:
        value = plain(int(self), *others)
        return Follows(value) if type(value) is int else value

    return compute


for _name in ["add", "radd", "sub", "rsub", "mul", "rmul", "floordiv", "rfloordiv", "mod", "neg", "pow"]:
    setattr(Follows, f"__{_name}__", _computed(f"__{_name}__"))


def following(shape: Any, axis: int, met: Callable[[int, Attribute], None]) -> Any:
    """A shape, or one of its numbers, whose numbers know that they are.

    Args:
        shape: of a tensor.
        axis: that a single number is of.
        met: told the axis of a number that is compared with an attribute.
    """
    if isinstance(shape, torch.Size):
        return torch.Size([following(n, at, met) for at, n in enumerate(shape)])
    if type(shape) is not int:
        return shape
    number = Follows(shape)
    number.met = partial(met, axis)
    return number


@contextmanager
def known_attributes(model: nn.Module) -> Iterator[None]:
    """Within the context whole numbers that modules keep know whose they are; those of PyTorch's do not."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    for layer, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn") or (has_channels(module) and not module._modules):
            continue
        for name, value in list(vars(module).items()):
            if type(value) is int and value > 1:
                fresh: Any = Attribute.of(value, layer, name)
            elif type(value) in (list, tuple) and value and all(type(v) is int for v in value):
                fresh = type(value)(Attribute.of(v, layer, f"{name}.{i}") for i, v in enumerate(value))
            else:
                continue
            before.append((vars(module), name, value))
            vars(module)[name] = fresh
    try:
        yield
    finally:
        for attributes, name, value in before:
            if attributes.get(name) == value:
                attributes[name] = value
