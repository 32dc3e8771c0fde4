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
from coprune.groups.labels import (
    ALONG,
    MOVES,
    POOLS,
    PRODUCTS,
    REDUCTIONS,
    axes_in,
    blank,
    compact,
    varies,
)
from coprune.groups.moves import move
from coprune.groups.pairs import Pairs
from coprune.groups.products import product, value_by_value
from coprune.groups.sizes import Attribute, following, known_attributes
from coprune.layers import (
    channels_axis,
    is_channel_norm,
    is_convolution,
    is_dense,
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
        given = self._values.fixed(because(SkipCode.MEETS_INPUT))
        for tensor in tensors_of(example):
            self._values.give(tensor, blank(tensor.shape, given))
        entered = hooked(self._model, dict.fromkeys(self._layers, self._enter), before=True)
        left = hooked(self._model, {n: partial(self._leave, n) for n in self._layers}, named=True)
        with entered, left, self:
            output = run(self._model, example)
        for tensor in counts(output):
            self._values.refuse(self._values.labels(tensor), because(SkipCode.OUTPUT))
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
            elif norm_of(layer):
                self._values.give(made[0], self._through_norm(name, layer, given[0]))
            elif isinstance(layer, nn.Embedding):
                made_axis = self._values.pairs.axis(name, "output")
                self._values.give(
                    made[0],
                    along(made[0].shape, -1, nodes(made_axis)) if made_axis else blank(made[0].shape),
                )
            elif is_dense(layer) or is_convolution(layer) or is_linear(layer):
                self._through_dense(name, layer, given[0], made[0])
            else:
                why = because(SkipCode.UNKNOWN_UNITS, layer=name, kind=type(layer).__name__)
                reader = because(SkipCode.READER, layer=name, kind=type(layer).__name__)
                for tensor in given:
                    self._values.refuse(self._values.labels(tensor), reader)
                for tensor in made:
                    self._values.give(tensor, blank(tensor.shape, self._values.fixed(why)))

    def _through_dense(self, name: str, layer: nn.Module, given: Tensor, made: Tensor) -> None:
        read, makes = self._values.pairs.axis(name, "input"), self._values.pairs.axis(name, "output")
        axis = channels_axis(layer, given.ndim)
        labels = self._values.labels(given)
        if is_grouped(layer) and layer.groups == layer.out_channels != layer.in_channels:
            self._values.refuse(labels, because(SkipCode.UNEVEN_BLOCKS, layer=name))
        if read is not None and read.size == given.shape[axis]:
            self._values.ties.tie(labels, along(given.shape, axis, nodes(read)))
        else:
            self._values.refuse(labels, because(SkipCode.UNPAIRED, layer=name))
        self._values.give(made, along(made.shape, axis, nodes(makes)) if makes else blank(made.shape))

    def _through_norm(self, name: str, layer: nn.Module, given: Tensor) -> Tensor:
        labels, axis = self._values.labels(given), self._values.pairs.axis(name, "output")
        if axis is None:
            if is_channel_norm(layer):
                self._values.refuse(labels, because(SkipCode.NORM_OVER_MAP, layer=name))
            return labels
        where = channels_axis(layer, given.ndim, given)
        if given.shape[where] != axis.size:
            self._values.refuse(labels, because(SkipCode.UNPAIRED, layer=name))
        else:
            self._values.ties.tie(labels, along(given.shape, where, nodes(axis)))
        return labels

    def _through_recurrent(
        self, name: str, layer: nn.Module, given: list[Tensor], made: list[Tensor]
    ) -> None:
        read, makes = self._values.pairs.axis(name, "input"), self._values.pairs.axis(name, "output")
        self._values.ties.tie(self._values.labels(given[0]), along(given[0].shape, -1, nodes(read)))
        hidden = nodes(makes)
        if getattr(layer, "proj_size", 0):
            fixed = self._values.fixed(because(SkipCode.UNKNOWN_UNITS, layer=name, kind=type(layer).__name__))
            hidden = torch.full_like(hidden, fixed)
        for tensor in (*given[1:], *made):  # states may be given too
            width = tensor.shape[-1]
            times = width // len(hidden)
            if times * len(hidden) != width:
                self._values.give(
                    tensor, blank(tensor.shape, self._values.fixed(because(SkipCode.UNPAIRED, layer=name)))
                )
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
            self._pass_on(name.removeprefix("_unsafe_"), function, args, named, made, result)
        elif name == "__setitem__":
            self._write(args)
        return result

    def _pass_on(
        self,
        name: str,
        function: Function,
        args: tuple[Any, ...],
        named: dict[str, Any],
        made: list[Tensor],
        result: Any,
    ) -> None:
        if _is_like(name, args, made):
            # Zeros of a tensor's own shape, such as a first hidden state, are as wide as it is.
            self._values.give(made[0], self._values.labels(args[0]))
            return
        given = [] if name.startswith("new_") else tensors_of((args, named))
        labels = [self._values.labels(t) for t in given]
        plain = name.rstrip("_") if not name.startswith("__") else name
        if not given or all(
            bool((part.reshape(-1)[:1] == -1).all()) and not any(map(partial(varies, part), range(part.ndim)))
            for part in labels
        ):
            return  # constants
        first = labels[0]
        if plain in MOVES:
            move(self._values, plain, function, args, named, made)
        elif plain in _CASTS:
            self._values.give(made[0], first)
        elif plain in POOLS:
            places = POOLS[plain] or given[0].ndim - 2
            axes = list(range(given[0].ndim - places, given[0].ndim))
            one = self._values.ties.along(first, axes)
            for tensor in made:
                self._values.give(
                    tensor, compact(one).expand(tensor.shape) if one.ndim == tensor.ndim else one
                )
        elif plain in ("_pack_padded_sequence", "_pad_packed_sequence"):
            one = self._values.ties.along(first, range(first.ndim - 1))
            self._values.give(made[0], one.reshape(-1).expand(made[0].shape))
        elif plain == "glu":
            axis = named.get("dim", args[1] if len(args) > 1 else -1)
            left, right = first.chunk(2, axis)
            self._values.ties.tie(left, right, gated=True)
            self._values.give(made[0], compact(left))
        elif plain in PRODUCTS or plain == "einsum":
            self._values.give(made[0], product(self._values, plain, args, named, given, labels, made[0]))
        elif plain in REDUCTIONS and not (len(given) > 1 and given[0].shape == made[0].shape):
            axes = axes_in(args, named, given[0].ndim)
            one = self._values.ties.along(first, axes)
            kept = made[0].ndim == given[0].ndim
            shape = [n for d, n in enumerate(one.shape) if kept or d not in axes]
            for tensor in made:
                self._values.give(tensor, compact(one.reshape(shape)))
        elif plain in ALONG and made[0].ndim == given[0].ndim:
            default = ALONG[plain]
            axes = axes_in(args if plain != "topk" else (), named, given[0].ndim, default)
            axes = axes if len(axes) == 1 else [default % given[0].ndim]
            together = self._values.ties.along(first, axes)
            for tensor in made:
                self._values.give(
                    tensor, compact(together.expand(tensor.shape)) if plain == "topk" else first
                )
        else:
            value_by_value(self._values, name, given, labels, made)

    def _write(self, args: tuple[Any, ...]) -> None:
        """``target[index] = value``."""
        target, index, value = args
        labels = self._values.labels(target).clone()
        fresh = self._values.labels(value) if isinstance(value, Tensor) else blank(())
        if isinstance(value, Tensor):
            labels[index] = fresh
            self._values.give(target, compact(labels))


def _is_like(name: str, args: tuple[Any, ...], made: list[Tensor]) -> bool:
    """Whether a function makes a tensor of the shape of another one, which it is given as a whole."""
    whole = name.endswith("_like") or (name.startswith("new_") and torch.Size in map(type, args[1:2]))
    return whole and isinstance(args[0], Tensor) and made[0].shape == args[0].shape


def is_known(module: nn.Module) -> bool:
    """Whether a layer's channels are known, or at least that it is one thing."""
    known = is_dense(module) or is_convolution(module) or is_linear(module) or norm_of(module) is not None
    return (
        known
        or is_recurrent(module)
        or isinstance(module, nn.Embedding | nn.MultiheadAttention | nn.Bilinear)
    )
