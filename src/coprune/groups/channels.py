"""Find a model's channel groups by what the dependency graph says, and what is left alone, with reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from coprune.compat.torch_pruning import ChannelGraph, NotFollowedError
from coprune.errors import UserError
from coprune.groups.attention import within
from coprune.groups.group import ChannelGroup, Units
from coprune.groups.pairs import Pairs
from coprune.layers import (
    is_convolution,
    is_dense,
    norm_of,
    tied_layers,
)
from coprune.skipped import Reason, SkipCode, because
from coprune.tracing.forward import FAILURES, Inputs
from coprune.tracing.hooks import hooked

_OUTPUT = SkipCode.OUTPUT


def find_channels(
    model: nn.Module,
    example: Inputs,
    *,
    closed: Mapping[str, Reason],
    coupled: bool,
    among: Collection[str] | None = None,
    partly: Collection[str] = (),
) -> Units:
    """The groups of channels of a model that is traced, and the layers that no group covers, with reasons.

    Args:
        model: any module that Torch-Pruning can trace.
        example: one sample ``[1, …]``.
        closed: modules inside of which nothing is made or carried by a group, with the reason.
        coupled: whether coupled groups are offered too.
        among: dense layers whose groups are looked for; None: all.
        partly: layers that run for some inputs only; no group has a part in them.

    Raises:
        UserError: the model cannot be traced.
    """
    if isinstance(example, dict):
        raise UserError(
            f"{type(model).__name__} reads named inputs but has no attention that is known; "
            "the dependency graph is traced with one tensor"
        )
    graph = ChannelGraph(model, example)
    ran = _execution_order(model, example)
    order = {name: at for at, name in enumerate(ran)}
    dense = [name for name in ran if is_dense(model.get_submodule(name))]
    left = {name: because(SkipCode.NOT_RUN) for name in _products(model) if name not in ran}
    left |= {name: because(SkipCode.SOME_INPUTS, layer=name) for name in partly if name in left}
    left |= {name: because(SkipCode.NOT_REACHED) for name in dense if name not in graph}
    closed = {**_for_all_samples(model, example, ran), **closed}
    rules = _Rules(graph, dense, closed, _whole(model, partly), coupled)
    roots = [n for n in _products(model, ran) if n in graph and (among is None or n in among)]
    found: list[ChannelGroup] = []
    for group, refused in _candidates(model, graph, roots, order):
        reason = rules.reason(group, refused)
        if reason is None:
            found.append(group)
        else:
            left |= dict.fromkeys(group.producers, reason)
    found.sort(key=lambda g: order[g.name])
    made = {layer for g in found for layer in g.producers}
    skipped = sorted((n for n in left if n not in made), key=lambda n: order.get(n, -1))
    return Units(tuple(_named_apart(found)), tuple(left[n].of(n) for n in skipped))


def _candidates(
    model: nn.Module, graph: ChannelGraph, roots: Sequence[str], order: Mapping[str, int]
) -> Iterator[tuple[ChannelGroup, list[Reason]]]:
    """All groups that some layers have a part in, and what was found on the way that they cannot pass.

    Args:
        model: the model.
        graph: of the model.
        roots: the layers whose outputs are followed.
        order: name → place of the layers that run.
    """
    pairs, inner = Pairs(model), set[str]()
    # A residual stream is made by a layer or two of every block: from one of them all the others are met.
    met: set[str] = set()
    for name in roots:
        if name in met:
            continue
        try:
            places = graph.follow(name)
        except NotFollowedError as cause:
            pairs.refuse(name, because(SkipCode.NOT_FOLLOWED, cause=cause))
            continue
        alone = Pairs(model)
        met |= alone.take(name, places)
        own = list(alone.groups(order))
        if len(own) == 1 and own[0][0].kind == "inner":
            # Nothing that is misread elsewhere can touch it.
            yield own[0]
            inner.add(own[0][0].name)
        else:
            pairs.take(name, places)
    yield from ((group, why) for group, why in pairs.groups(order) if not inner & {*group.producers})


@dataclass(frozen=True)
class _Rules:
    """What decides whether a group is offered.

    Attributes:
        graph: of the model.
        dense: the dense layers, in the order in which they run.
        closed: modules inside of which nothing is made or carried by a group, with the reason.
        whole: layers that cannot be cut, with the reason.
        coupled: whether coupled groups are offered.
    """

    graph: ChannelGraph
    dense: Sequence[str]
    closed: Mapping[str, Reason]
    whole: Mapping[str, Reason]
    coupled: bool

    def reason(self, group: ChannelGroup, refused: Sequence[Reason]) -> Reason | None:
        """Why a group is left alone, if so.

        Args:
            group: of channels.
            refused: what was found on the way that its channels cannot pass.
        """
        inner = group.kind == "inner"
        reasons = [why for name, why in self.closed.items() if any(within(n, (name,)) for n in group.own)]
        reasons += [self.whole[m.layer] for m in group.members if m.layer in self.whole]
        # Inner channels may be returned by the model too.
        reasons += [why for why in refused if not (inner and why.code is _OUTPUT)]
        if self.dense[-1] in group.producers or not group.of_role("consumer"):
            reasons.append(because(_OUTPUT))
        if reasons:
            return self._by_reader(reasons[0], group)
        if not inner and not self.coupled:
            return _coupling(group.producers)
        if inner and group.name == self.dense[0]:
            return because(SkipCode.FIRST)
        # Pruned before, or a gate: without its one channel nothing is left of the layer.
        one = because(SkipCode.SINGLE, unit="channel") if inner else because(SkipCode.ONE_UNIT)
        return one if group.size < 2 else None

    def _by_reader(self, reason: Reason, group: ChannelGroup) -> Reason:
        """The reason, or the layer that reads the channels, where that is what cannot be cut."""
        if reason.code in (_OUTPUT, SkipCode.NOT_FOLLOWED, SkipCode.UNKNOWN_UNITS):
            readers = (self.graph.uncuttable_reader(n) for n in group.producers if n in self.graph)
            for name, kind in filter(None, readers):
                return because(SkipCode.READER, layer=name, kind=kind)
        return reason


def _coupling(producers: Sequence[str]) -> Reason:
    """Why a group is no inner group."""
    if len(producers) < 2:
        return because(SkipCode.COUPLED)
    named = ", ".join(sorted(producers)[:4]) + (" …" if len(producers) > 4 else "")
    return because(SkipCode.SUMMED, layers=named)


def _whole(model: nn.Module, partly: Collection[str]) -> dict[str, Reason]:
    """Layers that cannot be cut, whatever their part in a group."""
    whole = {n: because(SkipCode.TIED, layer=n, other=other) for n, other in tied_layers(model).items()}
    for name, parameter in model.named_parameters():
        if parameter.is_complex():
            whole[name.rpartition(".")[0]] = because(SkipCode.COMPLEX, parameter=name)
    return whole | {n: because(SkipCode.SOME_INPUTS, layer=n) for n in partly}


def _named_apart(groups: Sequence[ChannelGroup]) -> Iterator[ChannelGroup]:
    """Several groups of one first producer are numbered."""
    seen: dict[str, int] = {}
    for group in groups:
        number = seen[group.name] = seen.get(group.name, 0) + 1
        yield group if number == 1 else replace(group, name=f"{group.name}#{number}")


def _products(model: nn.Module, among: Collection[str] | None = None) -> list[str]:
    """Dense layers and grouped convolutions, in the order of ``among``, or of the model."""
    names = [name for name, _ in model.named_modules() if name] if among is None else among
    found = ((name, model.get_submodule(name)) for name in names)
    return [name for name, layer in found if is_convolution(layer) or isinstance(layer, nn.Linear)]


@torch.no_grad()
def _execution_order(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Names of dense layers and norms in the order in which they first run, and how many values they make."""
    order: dict[str, int] = {}

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            order.setdefault(name, output.numel())

    layers = [*_products(model), *(name for name, layer in model.named_modules() if norm_of(layer))]
    with hooked(model, {name: partial(note, name) for name in layers}):
        model.eval()(example.clone())
    return order


def run_for_some(model: nn.Module, inputs: Sequence[Tensor]) -> set[str]:
    """Layers that run on some inputs ``[N, …]`` and not on others, such as experts."""
    first, *others = (set(_products(model, _execution_order(model, x))) for x in inputs)
    return first.union(*others) - first.intersection(*others)


def _for_all_samples(model: nn.Module, example: Tensor, order: Mapping[str, int]) -> dict[str, Reason]:
    """Layers that make as much of two samples as of one, such as those behind a learned query."""
    try:
        twice = _execution_order(model, torch.cat([example, example]))
    except FAILURES:  # traced with one sample, it may take no more
        return {}
    same = [name for name in _products(model, order) if twice.get(name) == order[name]]
    return {name: because(SkipCode.ALL_SAMPLES, layer=name) for name in same}
