"""Torch-Pruning's dependency graph of a model, and what it says goes with a layer's channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import index_mapping

from coprune.compat.checkpointing import unchecked
from coprune.errors import UserError
from coprune.layers import FROZEN, Side, channel_count, grouping, has_channels, norm_of
from coprune.tracing.forward import FAILURES, Inputs, said


class _Regrouped(torch.autograd.Function):
    """A view that Torch-Pruning does not take for a flattened map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: torch.Size) -> Tensor:
        ctx.shape, ctx.made = x.shape, shape
        return x.reshape(shape).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.reshape(ctx.shape), None


class _Shuffles(TorchFunctionMode):
    """Within the context, maps that are split into groups of channels and back pass as they are.

    Torch-Pruning (1.6.1) takes a channel shuffle's reshape for a flattening, and divides by 0.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        reshaped = getattr(func, "__name__", "") in ("view", "reshape") and isinstance(args[0], Tensor)
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


_SWAPS = ("transpose", "permute")


def _tell_paths(graph: tp.DependencyGraph) -> None:
    """Say which channels are which where a map is split into paths (selective kernels, ResNeSt).

    A channel shuffle begins in the same way and then swaps the two axes; that is left as it is.
    """
    for node in list(graph.module2node.values()):
        made = getattr(node.grad_fn, "made", ())
        if not isinstance(made, torch.Size) or len(made) != 5:
            continue
        if any(word in str(n.grad_fn).lower() for n in node.outputs for word in _SWAPS):
            continue
        for before in node.inputs:
            for one, other, apart in ((before, node, False), (node, before, True)):
                for dep in (d for d in one.dependencies if d.target is other):
                    dep.index_mapping[0] = _Paths(made[1], made[2], apart)


_MAPPINGS = ("concat", "split", "reshape", "unbind", "expand", "slice")


@contextmanager
def unknown_parts() -> Iterator[None]:
    """Within the context, operations whose channels nobody can count are left as they are.

    Torch-Pruning (1.6.1) works out where channels are behind a concatenation or a reshape from the layers
    around it, and stops where there is none: at pieces of the image itself, a learned token, a part with
    a fixed number of channels. What it then takes for the place of channels behind it may be wrong; such
    groups are tried before they are offered.
    """
    plain = {name: getattr(index_mapping, f"update_{name}_index_mapping") for name in _MAPPINGS}

    def careful(
        update: Callable[[tp.DependencyGraph, Any], None],
    ) -> Callable[[tp.DependencyGraph, Any], None]:
        def updated(graph: tp.DependencyGraph, node: Any) -> None:
            with suppress(TypeError, LookupError, ArithmeticError):
                update(graph, node)

        return updated

    for name, update in plain.items():
        setattr(index_mapping, f"update_{name}_index_mapping", careful(update))
    try:
        yield
    finally:
        for name, update in plain.items():
            setattr(index_mapping, f"update_{name}_index_mapping", update)


@contextmanager
def _plain_norms(model: nn.Module) -> Iterator[None]:
    """Within the context, norms over groups of channels that are no PyTorch layer weigh channels and no more.

    Which channels form a group is known (:func:`coprune.layers.grouping`); how the norm reshapes
    its maps would only mislead Torch-Pruning.
    """
    changed = [m for m in model.modules() if grouping(m) is not None and not isinstance(m, nn.GroupNorm)]

    def weighing(norm: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            for parameter in norm.parameters(recurse=False):
                x = x * parameter.view(1, -1, 1, 1)
            return x

        return forward

    for norm in changed:
        norm.forward = weighing(norm)
    try:
        yield
    finally:
        for norm in changed:
            del norm.forward


class _ByChannel(tp.pruner.function.BasePruningFunc):
    """A batch norm that Torch-Pruning does not know; it is cut by slicing, so that only its size is told."""

    def get_out_channels(self, layer: nn.Module) -> int | None:
        return channel_count(layer, "output")

    def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
        raise NotImplementedError

    get_in_channels, prune_in_channels = get_out_channels, prune_out_channels


def pruning_group(graph: tp.DependencyGraph, layer: nn.Module, idxs: list[int]) -> tp.dependency.Group:
    """Torch-Pruning's own group of some of a layer's output channels, to cut or to judge them with."""
    with unknown_parts():
        return graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, idxs)


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


def trace(model: nn.Module, example: Inputs) -> tp.DependencyGraph:
    """The dependency graph of a model.

    Args:
        model: its forward pass is run once with gradients on.
        example: one or more samples ``[N, …]``.

    Raises:
        UserError: Torch-Pruning cannot follow the model.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad]
    try:
        with (
            warnings.catch_warnings(),
            torch.enable_grad(),
            unchecked(),
            _Shuffles(),
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
                customized_pruners={type(m): _ByChannel() for m in model.modules() if norm_of(m) is FROZEN},
            )
            _tell_paths(graph)
            return graph
    except FAILURES as cause:
        raise UserError(
            f"the dependency graph of {type(model).__name__} cannot be traced: {said(model, cause)}"
        ) from cause
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@dataclass(frozen=True)
class Together:
    """What goes with a layer's output channels at one place.

    Attributes:
        dep: how the place was reached; ``dep.target`` and ``dep.handler`` say what and which side of it.
        idxs: its channels, as they were found.
        root_idxs: with each of them, the first of the layer's channels that it hangs together with, by
            any path; None where Torch-Pruning does not say.
    """

    dep: tp.dependency.Dependency
    idxs: tuple[int, ...]
    root_idxs: tuple[int | None, ...]


def whole_group(graph: tp.DependencyGraph, root: nn.Module) -> tuple[Together, ...] | str:
    """What goes with each of a layer's output channels; or why that cannot be said.

    The graph's dependencies are Torch-Pruning's, the walk is not: its own follows a place again for every
    *list* of channels that arrives there, which need not end where channels of attention are regrouped.
    Here every channel of every place is followed once, and what hangs together is put together afterwards.
    """
    pruner = graph.get_pruner_of_module(root)
    node, handler = graph.module2node[root], pruner.prune_out_channels
    try:
        return _walked(graph, tp.dependency.Dependency(handler, handler, source=node, target=node))
    except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError) as cause:
        return f"coupled: Torch-Pruning cannot follow its channels ({type(cause).__name__}: {cause})"


def _channels_at(graph: tp.DependencyGraph, dep: tp.dependency.Dependency) -> int | None:
    """How many channels there are where a dependency leads; None where nobody counts them."""
    module = dep.target.module
    if not isinstance(module, nn.Module) or not has_channels(module):
        return None
    made = dep.handler == graph.get_pruner_of_module(module).prune_out_channels
    return channel_count(module, "output" if made else "input")


def _walked(graph: tp.DependencyGraph, start: tp.dependency.Dependency) -> tuple[Together, ...]:
    count = channel_count(start.target.module, "output") or 0
    # Nothing between layers is wider than the widest of them; where regrouping is misread, indices grow on.
    sides: tuple[Side, ...] = ("input", "output")
    widest = max(channel_count(m, side) or 0 for m in graph.model.modules() for side in sides)
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
            has = _channels_at(graph, new) or widest
            for index, source in reached:
                if index not in place:
                    if index >= has:
                        raise ValueError(
                            f"channel {index} of a {type(new.target.module).__name__} with {has}"
                        )
                    place[index] = total
                    total += 1
                    later.append(index)
                if source is not None:
                    edges.append((known[source], place[index]))
            if later:
                stack.append((new, later))
    left, right = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    matrix = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(total, total))
    _, label = connected_components(matrix, directed=False)
    first: dict[int, int] = {}
    for channel in range(count):
        first.setdefault(int(label[channel]), channel)
    return tuple(
        Together(dep, tuple(place), tuple(first.get(int(label[code])) for code in place.values()))
        for dep, place in seen.values()
    )
