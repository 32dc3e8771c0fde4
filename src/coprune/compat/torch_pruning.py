"""Torch-Pruning: its dependency graph, read by layer names, and its importance scores.

The one place that touches Torch-Pruning, and that works around what 1.6.1 does with channel shuffles,
selective kernels, concatenations of unknown parts and norms that it does not know.

Shapes: ``U`` units, ``S`` channels of a unit in one layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import Dependency, Group, Node, index_mapping

from coprune.errors import UserError
from coprune.layers import (
    Side,
    channel_count,
    grouping,
    has_channels,
    is_channelwise,
    is_convolution,
    is_dense,
    norm_of,
)
from coprune.tracing.calls import Intercepted, name_of
from coprune.tracing.checkpointing import unchecked
from coprune.tracing.forward import FAILURES, Inputs, model_raised

SUPPORTED = ((1, 6), (1, 7))
"""The first version that is known, and the first that is not; pyproject.toml pins the same."""


def check_version() -> None:
    """Refuse a Torch-Pruning whose internals are not known.

    Raises:
        UserError: with the command that installs one that is.
    """
    found = version("torch-pruning")
    first, beyond = (".".join(map(str, part)) for part in SUPPORTED)
    if not SUPPORTED[0] <= tuple(int(part) for part in found.split(".")[:2]) < SUPPORTED[1]:
        raise UserError(
            f"torch-pruning {found} is installed, and coprune knows {first} up to, not including, {beyond}; "
            f"pip install 'torch-pruning>={first},<{beyond}'"
        )


class NotFollowedError(Exception):
    """Torch-Pruning cannot say what goes with a layer's channels."""


@dataclass(frozen=True)
class Place:
    """What goes with a layer's output channels at one place.

    Attributes:
        layer: its name; None: the model's output.
        side: of the layer; layers between dense ones have an output only.
        parameter: the layer's own parameter that is meant, rather than the layer.
        channels: as they were found.
        roots: with each of them, the first of the layer's channels that it hangs together with, by any path;
            None where Torch-Pruning does not say.
    """

    layer: str | None
    side: Side
    parameter: str | None
    channels: tuple[int, ...]
    roots: tuple[int | None, ...]


class ChannelGraph:
    """Torch-Pruning's dependency graph of a model.

    Args:
        model: its forward pass is run once with gradients on.
        example: one or more samples ``[N, …]``.

    Raises:
        UserError: Torch-Pruning cannot follow the model, or is of a version that is not known.
    """

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        check_version()
        self._graph = _traced(model, example)
        self._names = {module: name for name, module in model.named_modules() if name}
        self._parameters = {p: name for name, p in model.named_parameters()}
        self._model = model
        # Nothing between layers is wider than the widest of them; where regrouping is misread, indices grow.
        sides: tuple[Side, ...] = ("input", "output")
        self._widest = max(channel_count(m, side) or 0 for m in model.modules() for side in sides)

    def __contains__(self, layer: str) -> bool:
        """Whether a layer was reached."""
        return self._model.get_submodule(layer) in self._graph.module2node

    def follow(self, layer: str) -> tuple[Place, ...]:
        """What goes with each of a layer's output channels, the layer itself first.

        The graph's dependencies are Torch-Pruning's, the walk is not: its own follows a place again for
        every *list* of channels that arrives there, which need not end where channels of attention are
        regrouped. Here every channel of every place is followed once, and what hangs together is put
        together afterwards.

        Raises:
            NotFollowedError: with the cause.
        """
        root = self._model.get_submodule(layer)
        node = self._graph.module2node[root]
        handler = self._graph.get_pruner_of_module(root).prune_out_channels
        try:
            found = self._walked(Dependency(handler, handler, source=node, target=node))
        except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError) as cause:
            raise NotFollowedError(f"{type(cause).__name__}: {cause}") from cause
        return tuple(place for each in found if (place := self.place(*each)) is not None)

    def place(
        self, dependency: Dependency, channels: Iterable[int], roots: Iterable[int | None]
    ) -> Place | None:
        """A dependency of Torch-Pruning's by names; None for operations without channels of their own."""
        target, parameter = dependency.target, None
        if target.type == tp.ops.OPTYPE.OUTPUT:
            return Place(None, "output", None, tuple(channels), tuple(roots))
        module = target.module
        if isinstance(module, nn.Parameter):
            layer, _, parameter = self._parameters[module].rpartition(".")
        elif module in self._names and has_channels(module):
            layer = self._names[module]
        else:
            return None
        return Place(layer, self._side(dependency), parameter, tuple(channels), tuple(roots))

    def _side(self, dependency: Dependency) -> Side:
        pruner = self._graph.get_pruner_of_module(dependency.target.module)
        return "output" if dependency.handler == pruner.prune_out_channels else "input"

    def uncuttable_reader(self, layer: str) -> tuple[str, str] | None:
        """Name and type of a layer that reads another's channels and cannot be cut, such as a GRU, if any."""
        wide = [m for m in self._names if any(p.ndim > 1 for p in m.parameters(recurse=False))]
        owners = {id(p): m for m in wide for p in m.parameters(recurse=False)}
        left, seen = list(self._graph.module2node[self._model.get_submodule(layer)].outputs), set[int]()
        while left:
            node = left.pop()
            if id(node) in seen or is_dense(node.module):
                continue
            seen.add(id(node))
            # Of layers that the graph does not know as such it sees the weights alone.
            for part in (node.module, *(owners.get(id(weight.module)) for weight in node.inputs)):
                if part not in self._names or not has_channels(part):
                    continue
                if not (is_dense(part) or is_convolution(part) or norm_of(part)):
                    return self._names[part], type(part).__name__
            left.extend(node.outputs)
        return None

    def _channels_at(self, dependency: Dependency) -> int | None:
        """How many channels there are where a dependency leads; None where nobody counts them."""
        module = dependency.target.module
        if not isinstance(module, nn.Module) or not has_channels(module):
            return None
        return channel_count(module, self._side(dependency))

    def _walked(self, start: Dependency) -> list[tuple[Dependency, tuple[int, ...], tuple[int | None, ...]]]:
        count = channel_count(start.target.module, "output") or 0
        # Place → how it was reached, and the number of each of its channels among all that were found.
        seen = {(id(start.target), start.handler): (start, {i: i for i in range(count)})}
        total = count
        edges: list[tuple[int, int]] = []
        stack = [(start, list(range(count)))]
        while stack:
            dep, fresh = stack.pop()
            known = seen[id(dep.target), dep.handler][1]
            for new in dep.target.dependencies:
                if not new.is_triggered_by(dep.handler):
                    continue
                reached = [_HybridIndex(idx=i, root_idx=i) for i in fresh]
                for mapping in new.index_mapping:
                    reached = reached if mapping is None else mapping(reached)
                if not reached:
                    continue
                place = seen.setdefault((id(new.target), new.handler), (new, {}))[1]
                later = []
                has = self._channels_at(new) or self._widest
                for index, source in reached:
                    if index not in place:
                        if index >= has:
                            kind = type(new.target.module).__name__
                            raise ValueError(f"channel {index} of a {kind} with {has}")
                        place[index] = total
                        total += 1
                        later.append(index)
                    if source is not None:
                        edges.append((known[source], place[index]))
                if later:
                    stack.append((new, later))
        label = connected(np.array(edges, dtype=np.int64).reshape(-1, 2), total)
        first: dict[int, int] = {}
        for channel in range(count):
            first.setdefault(int(label[channel]), channel)
        return [
            (dep, tuple(place), tuple(first.get(int(label[code])) for code in place.values()))
            for dep, place in seen.values()
        ]


def connected(edges: np.ndarray[Any, np.dtype[np.int64]], count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The number of the component that each of ``count`` things belongs to, by pairs of them ``[E, 2]``."""
    matrix = coo_matrix((np.ones(len(edges), dtype=bool), tuple(edges.T)), shape=(count, count))
    return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int64)


def _traced(model: nn.Module, example: Inputs) -> tp.DependencyGraph:
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        with (
            warnings.catch_warnings(),
            torch.enable_grad(),
            unchecked(),
            Intercepted(_regrouping),
            _plain_norms(model),
            unknown_parts(),
        ):
            warnings.simplefilter("ignore")
            # Tracing follows gradients; a frozen backbone would look like a constant.
            for parameter in frozen:
                parameter.requires_grad_(True)
            graph = tp.DependencyGraph().build_dependency(
                model.eval(),
                example_inputs=example,
                output_transform=_tensors,
                customized_pruners={type(m): _ByChannel() for m in model.modules() if _is_unknown(m)},
            )
            _tell_paths(graph)
            return graph
    except FAILURES as cause:
        raise UserError(
            f"the dependency graph of {type(model).__name__} cannot be traced: {model_raised(model, cause)}"
        ) from cause
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _is_unknown(module: nn.Module) -> bool:
    """Whether a layer works channel by channel in a way that Torch-Pruning does not know."""
    return is_channelwise(module) and tp.ops.module2type(module) == tp.ops.OPTYPE.ELEMENTWISE


class _Regrouped(torch.autograd.Function):
    """A view that Torch-Pruning does not take for a flattened map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: torch.Size) -> Tensor:
        ctx.shape, ctx.made = x.shape, shape
        return x.reshape(shape).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.reshape(ctx.shape), None


def _regrouping(function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Maps that are split into groups of channels and back pass as they are.

    Torch-Pruning (1.6.1) takes a channel shuffle's reshape for a flattening, and divides by 0.
    """
    made = function(*args, **named)
    reshaped = name_of(function) in ("view", "reshape") and isinstance(args[0], Tensor)
    if reshaped and {args[0].ndim, made.ndim} == {4, 5}:
        return _Regrouped.apply(args[0], made.shape)
    return made


@dataclass(frozen=True)
class _Paths:
    """Channels of paths side by side, ``[N, P·C, …]``, as those of a stack of paths, ``[N, P, C, …]``.

    Attributes:
        paths: ``P``.
        channels: ``C``.
        apart: from the stack to the paths, and not the other way.
    """

    paths: int
    channels: int
    apart: bool

    def __call__(self, idxs: list[_HybridIndex]) -> list[_HybridIndex]:
        if not self.apart:
            return [_HybridIndex(idx=i.idx % self.channels, root_idx=i.root_idx) for i in idxs]
        offsets = [path * self.channels for path in range(self.paths)]
        return [_HybridIndex(idx=i.idx + o, root_idx=i.root_idx) for i in idxs for o in offsets]


def _tell_paths(graph: tp.DependencyGraph) -> None:
    """Say which channels are which where a map is split into paths (selective kernels, ResNeSt).

    A channel shuffle begins in the same way and then swaps the two axes; that is left as it is.
    """
    for node in list(graph.module2node.values()):
        made = getattr(node.grad_fn, "made", ())
        if not isinstance(made, torch.Size) or len(made) != 5:
            continue
        behind = " ".join(str(n.grad_fn).lower() for n in node.outputs)
        if "transpose" in behind or "permute" in behind:
            continue
        for before in node.inputs:
            for one, other, apart in ((before, node, False), (node, before, True)):
                for dep in (d for d in one.dependencies if d.target is other):
                    dep.index_mapping[0] = _Paths(made[1], made[2], apart)


def _replace(owner: Any, name: str, value: object, *, until: ExitStack) -> None:
    before = vars(owner).get(name)
    setattr(owner, name, value)
    until.callback(*((delattr, owner, name) if before is None else (setattr, owner, name, before)))


@contextmanager
def unknown_parts() -> Iterator[None]:
    """Within the context, operations whose channels nobody can count are left as they are.

    Torch-Pruning (1.6.1) works out where channels are behind a concatenation or a reshape from the layers
    around it, and stops where there is none: at pieces of the image itself, a learned token, a part with
    a fixed number of channels. What it then takes for the place of channels behind it may be wrong; such
    groups are verified before they are offered.
    """

    def careful(update: Callable[..., None]) -> Callable[..., None]:
        def updated(graph: tp.DependencyGraph, node: Any) -> None:
            with suppress(TypeError, LookupError, ArithmeticError):
                update(graph, node)

        return updated

    with ExitStack() as patches:
        for kind in ("concat", "split", "reshape", "unbind", "expand", "slice"):
            name = f"update_{kind}_index_mapping"
            _replace(index_mapping, name, careful(getattr(index_mapping, name)), until=patches)
        yield


@contextmanager
def _plain_norms(model: nn.Module) -> Iterator[None]:
    """Within the context, norms that are no PyTorch layer weigh channels and no more.

    Which channels they have, or form a group, is known (:mod:`coprune.layers`); how they reshape maps and
    weights would only mislead Torch-Pruning.
    """

    def weighing(norm: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            for parameter in norm.parameters(recurse=False):
                x = x * parameter.view(1, -1, 1, 1)
            return x

        return forward

    with ExitStack() as patches:
        for norm in model.modules():
            if grouping(norm) is not None and not isinstance(norm, nn.GroupNorm):
                _replace(norm, "forward", weighing(norm), until=patches)
            elif _is_unknown(norm):
                _replace(norm, "forward", Tensor.clone, until=patches)
        yield


class _ByChannel(tp.pruner.function.BasePruningFunc):
    """A batch norm that Torch-Pruning does not know; it is never cut by it: only its size is needed."""

    def get_out_channels(self, layer: nn.Module) -> int | None:
        return channel_count(layer, "output")

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        raise NotImplementedError

    get_in_channels, prune_in_channels = get_out_channels, prune_out_channels


def _tensors(output: Any) -> list[Tensor]:
    """All tensors of a model's output, in order; of an object that is no container its ``logits``.

    Torch-Pruning (1.6.1) flattens tuples, lists and dicts by itself, but stops at anything else in them.
    """
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in _tensors(part)]
    logits = getattr(output, "logits", None)
    return [logits] if isinstance(logits, Tensor) else []


SCORERS: Mapping[str, Callable[[], Callable[[Group], Tensor | None]]] = {
    "magnitude": partial(tp.importance.GroupMagnitudeImportance, p=1),
    "magnitude_l2": partial(tp.importance.GroupMagnitudeImportance, p=2),
    "bn_scale": tp.importance.BNScaleImportance,
    "fpgm": tp.importance.FPGMImportance,
    "lamp": tp.importance.LAMPImportance,
    "taylor": tp.importance.GroupTaylorImportance,
    "hessian": tp.importance.GroupHessianImportance,
}
"""Kind → one of Torch-Pruning's classes with its defaults, which is how its users make it."""


def score(kind: str, shares: Iterable[tuple[nn.Module, Side, Tensor]]) -> Tensor:
    """What a class of Torch-Pruning says of a group's units.

    Args:
        kind: one of :data:`SCORERS`.
        shares: layers of the group, in the order in which they run, the side of them that is meant, and the
            channels of every unit there, ``[U, S]``.

    Returns:
        ``[U]`` float32; empty where the class has nothing to read.
    """
    check_version()
    group, pruners = Group(), tp.DependencyGraph()
    units = 0
    for layer, side, channels in shares:
        pruner, node = pruners.get_pruner_of_module(layer), Node(layer, grad_fn=None)
        handler = pruner.prune_in_channels if side == "input" else pruner.prune_out_channels
        group.add_dep(Dependency(handler, handler, source=node, target=node), channels.flatten().tolist())
        units = len(channels)
        group[len(group) - 1].root_idxs = torch.arange(units).repeat_interleave(channels.shape[1]).tolist()
    found = SCORERS[kind]()(group)
    # The classes make room for as many units as the first layer has channels.
    return torch.empty(0) if found is None else found[:units]
