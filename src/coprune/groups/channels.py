"""Find a model's channel groups by what one pass with labels says, and what is left alone, with reasons."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from coprune.groups.attention import within
from coprune.groups.group import ChannelGroup, Units
from coprune.groups.idle import idle_layers
from coprune.groups.trace import follow_channels
from coprune.layers import (
    is_dense,
    is_recurrent,
    tied_layers,
)
from coprune.skipped import Reason, SkipCode, because
from coprune.tracing.execution import execution_order, products_of
from coprune.tracing.forward import (
    FAILURES,
    Counts,
    Inputs,
    counted,
    joined,
)


def find_channels(
    model: nn.Module,
    example: Inputs,
    *,
    closed: Mapping[str, Reason],
    coupled: bool,
    among: Collection[str] | None = None,
    named: Collection[str] = (),
    partly: Collection[str] = (),
    counts: Counts = counted,
) -> Units:
    """The groups of channels of a model that is traced, and the layers that no group covers, with reasons.

    Args:
        model: any module.
        example: one sample ``[1, …]``.
        closed: modules inside of which nothing is made or carried by a group, with the reason.
        coupled: whether coupled groups are offered too.
        among: dense layers whose groups are looked for; None: all.
        named: layers that were asked for; of these, the first one too is offered.
        partly: layers that run for some inputs only; no group has a part in them.
        counts: takes what counts out of what the model hands back.

    Raises:
        UserError: the model cannot be traced.
    """
    pairs = follow_channels(model, example, counts)
    ran = execution_order(model, example)
    order = {name: at for at, name in enumerate(ran)}
    layers = {name: model.get_submodule(name) for name in ran}
    # Behind a recurrent layer none is the first.
    begin = next((n for n, layer in layers.items() if is_dense(layer) or is_recurrent(layer)), "")
    first = {n for n in {begin}.difference(named) if is_dense(layers.get(n, model))}
    left = {name: because(SkipCode.NOT_RUN) for name in products_of(model) if name not in ran}
    left |= {name: because(SkipCode.SOME_INPUTS, layer=name) for name in partly if name in left}
    closed = {**_for_all_samples(model, example, ran), **closed}
    idle, whole = idle_layers(model, example, counts), _whole(model, partly)
    found: list[ChannelGroup] = []
    for group, refused in pairs.groups(order):
        if among is not None and not {*among} & {*group.producers}:
            continue
        inner = group.kind == "inner"
        # The first one is told.
        reasons = [why for name, why in closed.items() if any(within(n, (name,)) for n in group.own)]
        reasons += [whole[m.layer] for m in group.members if m.layer in whole]
        # Inner channels may be returned by the model too.
        reasons += [why for why in refused if not (inner and why.code is SkipCode.OUTPUT)]
        if not group.of_role("consumer"):
            reasons.append(because(SkipCode.OUTPUT))
        if idle.issuperset(group.producers):
            reasons.append(because(SkipCode.IDLE))
        if not inner and not coupled:
            reasons.append(_coupling(group.producers))
        if inner and group.name in first:
            reasons.append(because(SkipCode.FIRST))
        if group.size < 2:
            # Pruned before, or a gate: without its one channel nothing is left of the layer.
            reasons.append(because(SkipCode.SINGLE, unit="channel") if inner else because(SkipCode.ONE_UNIT))
        if reasons:
            left |= dict.fromkeys(group.producers, reasons[0])
        else:
            found.append(group)
    found.sort(key=lambda g: order[g.name])
    made = {layer for g in found for layer in g.producers}
    skipped = sorted((n for n in left if n not in made), key=lambda n: order.get(n, -1))
    return Units(tuple(_named_apart(found)), tuple(left[n].of(n) for n in skipped))


def _coupling(producers: Sequence[str]) -> Reason:
    """Why a group is no inner group."""
    if len(producers) < 2:
        return because(SkipCode.COUPLED)
    named = ", ".join(sorted(producers)[:4]) + (" …" if len(producers) > 4 else "")
    return because(SkipCode.SUMMED, layers=named)


def _whole(model: nn.Module, partly: Collection[str]) -> dict[str, Reason]:
    """Layers that cannot be cut, whatever their part in a group."""
    whole = {n: because(SkipCode.TIED, layer=n, other=other) for n, other in tied_layers(model).items()}
    complexes = (name for name, parameter in model.named_parameters() if parameter.is_complex())
    whole |= {name.rpartition(".")[0]: because(SkipCode.COMPLEX, parameter=name) for name in complexes}
    return whole | {n: because(SkipCode.SOME_INPUTS, layer=n) for n in partly}


def _named_apart(groups: Sequence[ChannelGroup]) -> Iterator[ChannelGroup]:
    """Several groups of one first producer are numbered."""
    seen: dict[str, int] = {}
    for group in groups:
        number = seen[group.name] = seen.get(group.name, 0) + 1
        yield group if number == 1 else replace(group, name=f"{group.name}#{number}")


def _for_all_samples(model: nn.Module, example: Inputs, order: Mapping[str, object]) -> dict[str, Reason]:
    """Layers that make as much of two samples as of one, such as those behind a learned query."""
    try:
        twice = execution_order(model, joined([example, example]))
    except FAILURES:  # traced with one sample, it may take no more
        return {}
    products = {*products_of(model)}
    same = (name for name, made in order.items() if name in products and twice.get(name) == made)
    return {name: because(SkipCode.ALL_SAMPLES, layer=name) for name in same}
