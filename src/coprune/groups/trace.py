"""Follow every channel through one forward pass: which go together, and which cannot go.

One pass on an example, in which every tensor has the labels of its values' channels
(:mod:`coprune.groups.labels`). Layers that are known make and read channels; all between them is seen call by
call, so it is all the same whose code it is and what it reads or hands back.

Shapes: ``C`` channels of a layer's input or output.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.groups.labels import (
    ALONG,
    MOVES,
    POOLS,
    PRODUCTS,
    REDUCTIONS,
    Ties,
    axes_in,
    blank,
    compact,
    mapped,
    varies,
)
from coprune.groups.pairs import Axis, Pairs
from coprune.groups.sizes import Attribute, Follows, following, known_attributes
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
from coprune.skipped import Reason, SkipCode, because
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

_LABELS = "_coprune_labels"

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
            found.run(copied(example), counts)
    except FAILURES as cause:
        raise UserError(
            f"the channels of {type(model).__name__} cannot be traced: {model_raised(model, cause)}"
        ) from cause
    return found.pairs


class _Pass(Intercepted):
    """A pass with labels; see :func:`follow_channels`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(self._note)
        self.pairs = Pairs(model)
        self._model = model.eval()
        self._ties = Ties()
        self._reasons: list[Reason] = []
        self._inside = 0
        self._layers = {name: m for name, m in model.named_modules() if name and is_known(m)}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self._of_parameters: dict[int, Tensor] = {}

    def run(self, example: Inputs, counts: Counts) -> None:
        """The pass; afterwards the pairs are complete."""
        given = self._fixed(because(SkipCode.MEETS_INPUT))
        for tensor in tensors_of(example):
            vars(tensor)[_LABELS] = blank(tensor.shape, given)
        entered = hooked(self._model, dict.fromkeys(self._layers, self._enter), before=True)
        left = hooked(self._model, {n: partial(self._leave, n) for n in self._layers}, named=True)
        with entered, left, self:
            output = run(self._model, example)
        for tensor in counts(output):
            labels = self._labels(tensor)
            self.pairs.refuse_channels(labels[labels >= 0].unique(), because(SkipCode.OUTPUT))
        for pairs in self._ties.pairs:
            self.pairs.tie(pairs[:, 0].long().numpy(), pairs[:, 1].long().numpy())
        for pairs in self._ties.fixed:
            for label in pairs[:, 1].unique():
                channels = pairs[pairs[:, 1] == label, 0]
                self.pairs.refuse_channels(channels, self._reasons[-2 - int(label)])

    # ---- labels of tensors ----

    def _fixed(self, reason: Reason) -> float:
        """The label of values of a width that cannot change."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return -2.0 - self._reasons.index(reason)

    def _labels(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, nn.Parameter) and id(tensor) in self._parameters:
            if id(tensor) not in self._of_parameters:
                self._of_parameters[id(tensor)] = self._of_parameter(tensor)
            return self._of_parameters[id(tensor)]
        labels = vars(tensor).get(_LABELS)
        return labels if labels is not None and labels.shape == tensor.shape else blank(tensor.shape)

    def _give(self, tensor: Tensor, labels: Tensor) -> None:
        vars(tensor)[_LABELS] = labels if labels.shape == tensor.shape else blank(tensor.shape)

    def _of_parameter(self, parameter: nn.Parameter) -> Tensor:
        """A bare parameter has channels along the one axis that it has."""
        name = self._parameters[id(parameter)]
        layer, _, own = name.rpartition(".")
        wide = [d for d, n in enumerate(parameter.shape) if n > 1]
        if layer in self._layers or len(wide) > 1:
            if layer in self._layers:
                self.pairs.refuse(layer, because(SkipCode.SEVERAL_AXES, parameter=name))
            return blank(parameter.shape, self._fixed(because(SkipCode.SEVERAL_AXES, parameter=name)))
        axis = self.pairs.axis(layer, "output", own) if wide else None
        return _along(parameter.shape, wide[0], _nodes(axis)) if axis else blank(parameter.shape)

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
                self._give(made[0], self._through_norm(name, layer, given[0]))
            elif isinstance(layer, nn.Embedding):
                made_axis = self.pairs.axis(name, "output")
                self._give(
                    made[0],
                    _along(made[0].shape, -1, _nodes(made_axis)) if made_axis else blank(made[0].shape),
                )
            elif is_dense(layer) or is_convolution(layer) or is_linear(layer):
                self._through_dense(name, layer, given[0], made[0])
            else:
                why = because(SkipCode.UNKNOWN_UNITS, layer=name, kind=type(layer).__name__)
                reader = because(SkipCode.READER, layer=name, kind=type(layer).__name__)
                for tensor in given:
                    self._refuse(self._labels(tensor), reader)
                for tensor in made:
                    self._give(tensor, blank(tensor.shape, self._fixed(why)))

    def _refuse(self, labels: Tensor, reason: Reason) -> None:
        self.pairs.refuse_channels(labels[labels >= 0].unique(), reason)

    def _through_dense(self, name: str, layer: nn.Module, given: Tensor, made: Tensor) -> None:
        read, makes = self.pairs.axis(name, "input"), self.pairs.axis(name, "output")
        axis = channels_axis(layer, given.ndim)
        labels = self._labels(given)
        if is_grouped(layer) and layer.groups == layer.out_channels != layer.in_channels:
            self._refuse(labels, because(SkipCode.UNEVEN_BLOCKS, layer=name))
        if read is not None and read.size == given.shape[axis]:
            self._ties.tie(labels, _along(given.shape, axis, _nodes(read)))
        else:
            self._refuse(labels, because(SkipCode.UNPAIRED, layer=name))
        self._give(made, _along(made.shape, axis, _nodes(makes)) if makes else blank(made.shape))

    def _through_norm(self, name: str, layer: nn.Module, given: Tensor) -> Tensor:
        labels, axis = self._labels(given), self.pairs.axis(name, "output")
        if axis is None:
            if is_channel_norm(layer):
                self._refuse(labels, because(SkipCode.NORM_OVER_MAP, layer=name))
            return labels
        along = channels_axis(layer, given.ndim, given)
        if given.shape[along] != axis.size:
            self._refuse(labels, because(SkipCode.UNPAIRED, layer=name))
        else:
            self._ties.tie(labels, _along(given.shape, along, _nodes(axis)))
        return labels

    def _through_recurrent(
        self, name: str, layer: nn.Module, given: list[Tensor], made: list[Tensor]
    ) -> None:
        read, makes = self.pairs.axis(name, "input"), self.pairs.axis(name, "output")
        self._ties.tie(self._labels(given[0]), _along(given[0].shape, -1, _nodes(read)))
        hidden = _nodes(makes)
        if getattr(layer, "proj_size", 0):
            fixed = self._fixed(because(SkipCode.UNKNOWN_UNITS, layer=name, kind=type(layer).__name__))
            hidden = torch.full_like(hidden, fixed)
        for tensor in (*given[1:], *made):  # states may be given too
            width = tensor.shape[-1]
            times = width // len(hidden)
            if times * len(hidden) != width:
                self._give(tensor, blank(tensor.shape, self._fixed(because(SkipCode.UNPAIRED, layer=name))))
                continue
            labels = _along(tensor.shape, -1, hidden.repeat(times))
            if any(tensor is one for one in made):
                self._give(tensor, labels)
            else:
                self._ties.tie(self._labels(tensor), labels)

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
        given = [] if name.startswith("new_") or name.endswith("_like") else tensors_of((args, named))
        labels = [self._labels(t) for t in given]
        plain = name.rstrip("_") if not name.startswith("__") else name
        if not given or all(
            bool((part.reshape(-1)[:1] == -1).all()) and not any(map(partial(varies, part), range(part.ndim)))
            for part in labels
        ):
            return  # constants
        first = labels[0]
        if plain in MOVES:
            self._move(plain, function, args, named, made)
        elif plain in _CASTS:
            self._give(made[0], first)
        elif plain in POOLS:
            places = POOLS[plain] or given[0].ndim - 2
            axes = list(range(given[0].ndim - places, given[0].ndim))
            one = self._ties.along(first, axes)
            for tensor in made:
                self._give(tensor, compact(one).expand(tensor.shape) if one.ndim == tensor.ndim else one)
        elif plain in ("_pack_padded_sequence", "_pad_packed_sequence"):
            one = self._ties.along(first, range(first.ndim - 1))
            self._give(made[0], one.reshape(-1).expand(made[0].shape))
        elif plain == "glu":
            axis = named.get("dim", args[1] if len(args) > 1 else -1)
            left, right = first.chunk(2, axis)
            self._ties.tie(left, right)
            self._give(made[0], compact(left))
        elif plain in PRODUCTS or plain == "einsum":
            self._give(made[0], self._product(plain, args, named, given, labels, made[0]))
        elif plain in REDUCTIONS and not (len(given) > 1 and given[0].shape == made[0].shape):
            axes = axes_in(args, named, given[0].ndim)
            one = self._ties.along(first, axes)
            kept = made[0].ndim == given[0].ndim
            shape = [n for d, n in enumerate(one.shape) if kept or d not in axes]
            for tensor in made:
                self._give(tensor, compact(one.reshape(shape)))
        elif plain in ALONG and made[0].ndim == given[0].ndim:
            default = ALONG[plain]
            axes = axes_in(args if plain != "topk" else (), named, given[0].ndim, default)
            axes = axes if len(axes) == 1 else [default % given[0].ndim]
            together = self._ties.along(first, axes)
            for tensor in made:
                self._give(tensor, compact(together.expand(tensor.shape)) if plain == "topk" else first)
        else:
            self._otherwise(name, given, labels, made)

    def _otherwise(self, name: str, given: list[Tensor], labels: list[Tensor], made: list[Tensor]) -> None:
        """Value by value, as the shapes say; what is neither cannot be followed."""
        try:
            shape = torch.broadcast_shapes(*(t.shape for t in given))
        except RuntimeError:
            shape = torch.Size([-1])
        if all(tensor.shape == shape for tensor in made):
            met = self._ties.meet(labels, shape)
            for tensor in made:
                self._give(tensor, met)
            return
        why = because(SkipCode.NOT_FOLLOWED, cause=f"'{name}'")
        fixed = self._fixed(why)
        for part in labels:
            self._refuse(part, why)
        for tensor in made:
            self._give(tensor, blank(tensor.shape, fixed))

    def _write(self, args: tuple[Any, ...]) -> None:
        """``target[index] = value``."""
        target, index, value = args
        labels = self._labels(target).clone()
        fresh = self._labels(value) if isinstance(value, Tensor) else blank(())
        if isinstance(value, Tensor):
            labels[index] = fresh
            self._give(target, compact(labels))

    def _product(
        self,
        name: str,
        args: tuple[Any, ...],
        named: dict[str, Any],
        given: list[Tensor],
        labels: list[Tensor],
        made: Tensor,
    ) -> Tensor:
        """Sums of products: what is summed over goes together."""
        shape, along = made.shape, self._ties.along
        if name == "einsum" and isinstance(args[0], str) and "->" in args[0] and "." not in args[0]:
            operands, _, out = args[0].replace(" ", "").partition("->")
            parts = []
            for letters, part in zip(operands.split(","), labels, strict=True):
                one = along(part, [d for d, letter in enumerate(letters) if letter not in out])
                kept = [letter for letter in letters if letter in out]
                one = one.reshape([n for n, letter in zip(one.shape, letters, strict=True) if letter in out])
                order = sorted(kept, key=out.index)
                one = one.permute([kept.index(letter) for letter in order])
                sizes = iter(one.shape)
                parts.append(compact(one.reshape([next(sizes) if letter in kept else 1 for letter in out])))
            return self._ties.meet(parts, shape)
        if name == "__rmatmul__":
            labels = labels[::-1]
        if name in ("matmul", "__matmul__", "__rmatmul__", "bmm", "mm") and min(x.ndim for x in labels) > 1:
            left, right = along(labels[0], [labels[0].ndim - 1]), along(labels[1], [labels[1].ndim - 2])
            return self._ties.meet([left, right], shape)
        if name == "scaled_dot_product_attention":
            query, key = (along(part, [part.ndim - 1]) for part in labels[:2])
            key = along(key, [key.ndim - 2])
            value = along(labels[2], [labels[2].ndim - 2])
            return self._ties.meet([query, key, value], shape)
        if name == "linear" and labels[1].ndim == 2:
            read = along(labels[0], [labels[0].ndim - 1])
            weight = along(labels[1], [1]).reshape(-1)
            return self._ties.meet([read, weight, *labels[2:]], shape)
        self._otherwise(name, given, labels, [made])
        return self._labels(made)

    # ---- moves ----

    def _move(
        self, name: str, function: Function, args: tuple[Any, ...], named: dict[str, Any], made: list[Tensor]
    ) -> None:
        """The same move with the labels, shifted by one so that padding with zeros is no channel."""
        first = next(iter(tensors_of((args, named))))
        whole = self._labels(first)
        indices = name in ("__getitem__", "index_select", "gather", "take_along_dim", "masked_select")

        def shifted(tensor: Tensor) -> Tensor:
            # What says where is no value.
            return tensor if indices and tensor is not first else self._labels(tensor) + 1.0

        if name == "pad":
            named = {key: value for key, value in named.items() if key != "value"}
            args = args[:3]
        function = Tensor.reshape if name == "view" and not isinstance(args[1], torch.dtype) else function
        moved = function(*mapped(args, shifted), **mapped(named, shifted))
        parts = [compact(part - 1.0) for part in tensors_of(moved)]
        for tensor, part in zip(made, parts, strict=True):
            self._give(tensor, part)
        if name in ("chunk", "tensor_split", "split", "split_with_sizes", "hsplit", "vsplit"):
            self._tie_pieces(args, named, parts)
        elif name == "__getitem__":
            self._tie_slices(whole, args[1])
        elif name in ("view", "reshape", "unflatten"):
            self._give(made[0], self._tie_regrouped(name, whole, args, named, parts[0]))
        elif name in ("narrow", "expand", "repeat"):
            self._tie_sizes([n for n in args[1:] if isinstance(n, int)], parts[0])

    def _tie_pieces(self, args: tuple[Any, ...], named: dict[str, Any], parts: list[Tensor]) -> None:
        """Pieces stay as large as one another, or as an attribute says."""
        axis = named.get("dim", args[2] if len(args) > 2 else 0)
        sizes = next(
            (v for v in (*args[1:2], *named.values()) if isinstance(v, list | tuple | Attribute)), None
        )
        if sizes is not None:
            sizes = list(sizes) if isinstance(sizes, list | tuple) else [sizes] * len(parts)
            own = [size if isinstance(size, Attribute) else None for size in sizes]
            for size, part in zip(own, parts, strict=False):
                if size is not None and part.shape[axis] == size:
                    self._tie_attribute(size, part, axis)
            if all(size is not None for size in own):
                return
        if len({part.shape[axis] for part in parts}) == 1:
            for part in parts[1:]:
                self._ties.tie(parts[0], part)

    def _tie_attribute(self, size: Attribute, labels: Tensor, axis: int) -> None:
        """An attribute counts channels: it loses one with each of them."""
        if varies(labels, axis):
            counts = self.pairs.axis(size.layer, "output", size.name)
            if counts is not None:
                self._ties.tie(labels, _along(labels.shape, axis, _nodes(counts)))

    def _compared(self, tensor: Tensor, axis: int, size: Attribute) -> None:
        """A tensor must stay as wide as an attribute says, which therefore changes with it."""
        with self.aside():
            self._tie_attribute(size, self._labels(tensor), axis % max(1, tensor.ndim))

    def _tie_slices(self, labels: Tensor, index: Any) -> None:
        """Equal parts ``x[:, a:b]`` stay as large as one another; ``x[:, :n]`` as an attribute ``n`` says."""
        entries = index if isinstance(index, tuple) else (index,)
        if Ellipsis in [e for e in entries if not isinstance(e, Tensor)]:
            at = next(i for i, e in enumerate(entries) if e is Ellipsis)
            missing = labels.ndim - sum(e is not None and e is not Ellipsis for e in entries)
            entries = (*entries[:at], *(slice(None),) * missing, *entries[at + 1 :])
        for axis, entry in enumerate(e for e in entries if e is not None):
            if not isinstance(entry, slice) or axis >= labels.ndim or not varies(labels, axis):
                continue
            size = labels.shape[axis]
            own = [n for n in (entry.start, entry.stop) if isinstance(n, Attribute) and n <= size]
            for bound in own:
                self._tie_attribute(bound, labels.narrow(axis, 0, bound), axis)
            start, stop, step = entry.indices(size)
            width = stop - start
            if step > 1 and size % step == 0:
                self._ties.along(labels.unflatten(axis, (-1, step)), [axis % labels.ndim + 1])
            elif not own and 0 < width < size and size % width == start % width == 0:
                self._ties.along(labels.unflatten(axis, (-1, width)), [axis])

    def _tie_sizes(self, sizes: Sequence[int], labels: Tensor) -> None:
        """Sizes that attributes say, the last of them the last axis'."""
        for axis, size in enumerate(reversed(sizes), start=1):
            if isinstance(size, Attribute) and axis <= labels.ndim and labels.shape[-axis] == size:
                self._tie_attribute(size, labels, labels.ndim - axis)

    def _tie_regrouped(
        self, name: str, before: Tensor, args: tuple[Any, ...], named: dict[str, Any], labels: Tensor
    ) -> Tensor:
        """Where channels are split into several axes, one of these shrinks, and the others stay whole."""
        sizes = args[1:] if len(args) > 1 else tuple(named.values())
        if name == "unflatten":
            axis, into = (
                args[1] if len(args) > 1 else named["dim"],
                list(args[2] if len(args) > 2 else named["sizes"]),
            )
            axis %= before.ndim
            sizes = (
                *(Follows(n) for n in before.shape[:axis]),
                *into,
                *(Follows(n) for n in before.shape[axis + 1 :]),
            )
        elif sizes and isinstance(sizes[0], list | tuple | torch.Size):
            sizes = tuple(sizes[0])
        if len(sizes) != labels.ndim:
            return labels
        wide = [d for d in range(labels.ndim) if varies(labels, d)]
        if len(wide) > sum(varies(before, d) for d in range(before.ndim)):
            free = [d for d in wide if isinstance(sizes[d], Follows) or sizes[d] == -1]
            free = free or [d for d in wide if isinstance(sizes[d], Attribute)] or wide[-1:]
            labels = self._ties.along(labels, [d for d in wide if d != free[0]]).expand(labels.shape)
            wide = free[:1]
        for axis in wide:
            size = sizes[axis]
            if isinstance(size, Attribute):
                self._tie_attribute(size, labels, axis)
        return labels


def is_known(module: nn.Module) -> bool:
    """Whether a layer's channels are known, or at least that it is one thing."""
    known = is_dense(module) or is_convolution(module) or is_linear(module) or norm_of(module) is not None
    return (
        known
        or is_recurrent(module)
        or isinstance(module, nn.Embedding | nn.MultiheadAttention | nn.Bilinear)
    )


def _nodes(axis: Axis | None) -> Tensor:
    return torch.empty(0) if axis is None else torch.from_numpy(axis.channels).double()


def _along(shape: Sequence[int], axis: int, nodes: Tensor) -> Tensor:
    """Labels that differ along one axis only."""
    axis %= len(shape)
    return nodes.view([-1 if d == axis else 1 for d in range(len(shape))]).expand(tuple(shape))
