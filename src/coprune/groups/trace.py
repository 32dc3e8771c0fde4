"""Follow every channel through one forward pass: which go together, and which cannot go.

One pass on an example, in which every tensor has the labels of its values' channels
(:mod:`coprune.groups.labels`). Layers that are known make and read channels; all between them is seen call by
call, so it is all the same whose code it is and what it reads or hands back.

Shapes: ``C`` channels of a layer's input or output.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.groups.labelled import Labelled, along, nodes
from coprune.groups.labels import ALONG, MOVES, NONE, POOLS, PRODUCTS, REDUCTIONS, axes_in, core
from coprune.groups.moves import move
from coprune.groups.pairs import Pairs
from coprune.groups.products import sum_of_products, value_by_value
from coprune.groups.sizes import Attribute, following, known_attributes
from coprune.layers import (
    channels_axis,
    is_channel_norm,
    is_convolution,
    is_grouped,
    is_linear,
    is_recurrent,
    norm_of,
)
from coprune.skipped import SkipCode, because
from coprune.tracing.calls import Function, Intercepted, name_of
from coprune.tracing.forward import (
    FAILURES,
    Counts,
    Inputs,
    copied,
    counted,
    model_raised,
    run,
    tensors_of,
)
from coprune.tracing.hooks import hooked

_CASTS = ("type_as", "to", "type")
"""Functions of one tensor, whatever else they are given."""


def follow_channels(model: nn.Module, example: Inputs, counts: Counts = counted) -> Pairs:
    """Which channels of a model go together.

    Args:
        model: run once in evaluation mode, without gradients.
        example: one or more samples.
        counts: takes what counts out of what the model hands back; what it makes stays.

    Raises:
        UserError: the model does not run on the example.
    """
    found = _Pass(model)
    try:
        with torch.no_grad(), known_attributes(model):
            return found.run(copied(example), counts)
    except FAILURES as cause:
        raise UserError(
            f"the channels of {type(model).__name__} cannot be traced: {model_raised(model, cause)}"
        ) from cause


class _Pass(Intercepted):
    """A pass with labels; see :func:`follow_channels`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(self._note)
        self._model = model.eval()
        self._inside = 0
        self._layers = {name: m for name, m in model.named_modules() if name and is_known(m)}
        self._values = Labelled(model, self._layers)

    def run(self, example: Inputs, counts: Counts) -> Pairs:
        """The pass, and what it shows."""
        self._values.fix(example, because(SkipCode.MEETS_INPUT))
        entered = hooked(self._model, dict.fromkeys(self._layers, self._enter), before=True)
        left = hooked(self._model, {n: partial(self._leave, n) for n in self._layers}, named=True)
        with entered, left, self:
            output = run(self._model, example)
        self._values.refuse(counts(output), because(SkipCode.OUTPUT))
        return self._values.finish()

    # ---- layers that are known ----

    def _enter(self, *_: Any) -> None:
        self._inside += 1

    def _leave(self, name: str, layer: nn.Module, args: Any, named: dict[str, Any], output: Any) -> None:
        self._inside -= 1
        given, made = tensors_of((args, named)), tensors_of(output)
        if self._inside or not given or not made:
            return
        with self.aside():
            if is_recurrent(layer):
                self._through_recurrent(name, layer, given, made)
            elif isinstance(layer, nn.Embedding):
                self._values.give(made[0], along(made[0].shape, -1, self._values.pairs.axis(name, "output")))
            elif is_convolution(layer) or is_linear(layer) or norm_of(layer):
                self._through(name, layer, given[0], made[0])
            else:
                kind = type(layer).__name__
                self._values.refuse(given, because(SkipCode.READER, layer=name, kind=kind))
                self._values.fix(made, because(SkipCode.UNKNOWN_UNITS, layer=name, kind=kind))

    def _through(self, name: str, layer: nn.Module, given: Tensor, made: Tensor) -> None:
        """A dense layer, which makes channels of its own, or a norm, which hands on those it is given."""
        values, makes_own = self._values, norm_of(layer) is None
        read, makes = values.pairs.axis(name, "input"), values.pairs.axis(name, "output")
        axis = channels_axis(layer, given.ndim, given)
        if is_grouped(layer) and layer.groups == layer.out_channels != layer.in_channels:
            values.refuse(given, because(SkipCode.UNEVEN_BLOCKS, layer=name))
        if makes_own or read is not None:
            values.meet(given, axis, read, name)
        elif is_channel_norm(layer):
            values.refuse(given, because(SkipCode.NORM_OVER_MAP, layer=name))
        values.give(made, along(made.shape, axis, makes) if makes_own else values.labels(given))

    def _through_recurrent(
        self, name: str, layer: nn.Module, given: list[Tensor], made: list[Tensor]
    ) -> None:
        read, makes = self._values.pairs.axis(name, "input"), self._values.pairs.axis(name, "output")
        self._values.meet(given[0], -1, read, name)
        hidden = nodes(makes)
        if getattr(layer, "proj_size", 0):
            why = because(SkipCode.UNKNOWN_UNITS, layer=name, kind=type(layer).__name__)
            hidden = self._values.fixed(why).expand(hidden.shape)
        for tensor in (*given[1:], *made):  # states may be given too
            times, more = divmod(tensor.shape[-1], len(hidden))
            if more:
                self._values.fix(tensor, because(SkipCode.UNPAIRED, layer=name))
                continue
            labels = along(tensor.shape, -1, hidden.repeat(times))
            if any(tensor is one for one in made):
                self._values.give(tensor, labels)
            else:
                self._values.ties.tie(self._values.labels(tensor), labels)

    def _compared(self, tensor: Tensor, axis: int, size: Attribute) -> None:
        """A tensor must stay as wide as an attribute says, which therefore changes with it."""
        with self.aside():
            self._values.tie_attribute(size, self._values.labels(tensor), axis % max(1, tensor.ndim))

    # ---- what is between them ----

    def _note(self, function: Function, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        result = function(*args, **named)
        if self._inside:
            return result
        name = name_of(function)
        if name == "__get__":
            name = getattr(getattr(function, "__self__", None), "__name__", "")
        if name in ("size", "shape", "numel", "__len__"):
            axis = next((a for a in (*args[1:], *named.values()) if isinstance(a, int)), 0)
            return following(result, axis, partial(self._compared, args[0]))
        made = tensors_of(result)
        if made and name not in ("grad", "__set__"):
            self._pass_on(name.removeprefix("_unsafe_"), function, args, named, made)
        elif name == "__setitem__":
            self._write(*args)
        return result

    def _pass_on(
        self, name: str, function: Function, args: tuple[Any, ...], named: dict[str, Any], made: list[Tensor]
    ) -> None:
        values, ties = self._values, self._values.ties
        if _is_like(name, args, made):
            # Zeros of a tensor's own shape, such as a first hidden state, are as wide as it is.
            values.give(made[0], values.labels(args[0]))
            return
        given = [] if name.startswith("new_") else tensors_of((args, named))
        labels = [values.labels(t) for t in given]
        plain = name.rstrip("_") if not name.startswith("__") else name
        if all(bool((core(part) == NONE).all()) for part in labels):
            return  # constants
        first, ndim = labels[0], given[0].ndim
        if plain in MOVES:
            move(values, plain, function, args, named, made)
        elif plain in _CASTS:
            values.give(made[0], first)
        elif plain in POOLS:
            values.give(made, ties.along(first, range(ndim)[-(POOLS[plain] or ndim - 2) :]))
        elif plain in ("_pack_padded_sequence", "_pad_packed_sequence"):
            values.give(made[0], ties.along(first, range(ndim - 1)).reshape(-1))
        elif plain == "glu":
            left, right = first.chunk(2, named.get("dim", args[1] if len(args) > 1 else -1))
            ties.tie(left, right, gated=True)
            values.give(made[0], left)
        elif plain in REDUCTIONS and not (len(given) > 1 and given[0].shape == made[0].shape):
            axes = axes_in(args, named, ndim)
            one = ties.along(first, axes)
            values.give(made, one if made[0].ndim == ndim else one.squeeze(axes))
        elif plain in ALONG and made[0].ndim == ndim:
            axes = axes_in(args if plain != "topk" else (), named, ndim, ALONG[plain])
            together = ties.along(first, axes if len(axes) == 1 else [ALONG[plain] % ndim])
            values.give(made, together if plain == "topk" else first)
        else:
            equation = args[0] if plain == "einsum" else PRODUCTS.get(plain)
            if not (isinstance(equation, str) and sum_of_products(values, equation, labels, made[0])):
                value_by_value(values, name, given, labels, made)

    def _write(self, target: Tensor, index: Any, value: Any) -> None:
        """``target[index] = value``."""
        if isinstance(value, Tensor):
            labels = self._values.labels(target).clone()
            labels[index] = self._values.labels(value)
            self._values.give(target, labels)


def _is_like(name: str, args: tuple[Any, ...], made: list[Tensor]) -> bool:
    """Whether a function makes a tensor of the shape of another one, which it is given as a whole."""
    whole = name.endswith("_like") or (name.startswith("new_") and torch.Size in map(type, args[1:2]))
    return whole and isinstance(args[0], Tensor) and made[0].shape == args[0].shape


def is_known(module: nn.Module) -> bool:
    """Whether a layer's channels are known, or at least that it is one thing."""
    known = is_convolution(module) or is_linear(module) or norm_of(module) is not None
    return known or isinstance(module, nn.Embedding | nn.MultiheadAttention | nn.Bilinear)
