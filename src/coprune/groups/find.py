"""Find the units of any model: a transformer's by its family, others' by following them through one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from coprune.errors import UserError, near_matches, setting
from coprune.groups.attention import find_transformer_units, unknown_heads, within
from coprune.groups.channels import find_channels
from coprune.groups.group import Units
from coprune.skipped import Reason, SkipCode, because
from coprune.tracing.forward import Counts, Inputs, counted


def find_units(
    model: nn.Module,
    example: Inputs,
    *,
    skip: Sequence[str] = (),
    only: Sequence[str] = (),
    coupled: bool = False,
    first: bool = False,
    partly: Collection[str] = (),
    counts: Counts = counted,
) -> Units:
    """All groups of a model, and the layers that no group covers, with reasons.

    A transformer's heads and feed-forward neurons are found by its family
    (:func:`coprune.groups.attention.find_transformer_units`), the channels of any other model, and those
    of a transformer's convolutional stages, by following them
    (:func:`coprune.groups.channels.find_channels`). There, layers inside attention are left alone, and the
    first and the last layer (CoSeP, arXiv 2505.13225), but for the first layer's part in a coupled group and
    where ``only`` names it.

    Args:
        model: any module.
        example: one sample with a batch dimension; a transformer that is nothing else is not called.
        skip: module names to leave alone; a container stands for all layers inside it.
        only: layers whose groups may be pruned, and nothing else; empty: all.
        coupled: whether coupled groups (:mod:`coprune.groups.channels`) are offered too, and not only
            reported. :func:`coprune.surgery.verify.sound` verifies them.
        first: whether the first layer's channels are offered too.
        partly: layers that run for some inputs only (:func:`coprune.groups.channels.run_for_some`): no group
            has a part in them.
        counts: takes what counts out of what the model hands back: layers that make it are left alone.

    Raises:
        UserError: the model does not run on the example, or a name in ``skip`` or ``only`` does not exist.
    """
    known = dict(model.named_modules())
    for option, given in (("skip", skip), ("only", only)):
        unknown = sorted(set(given) - known.keys())
        if unknown:
            named = [n for n in known if n]
            similar = [n for n in named if n.count(".") == unknown[0].count(".")] or named
            raise UserError(
                f"{setting(option, (unknown[0],))}: no such layer in {type(model).__name__}; "
                f"{near_matches(unknown[0], similar)}"
            )
    transformer = find_transformer_units(model, skip=skip)
    closed = unknown_heads(model, skip=skip)
    closed |= dict.fromkeys(skip, because(SkipCode.ASKED))
    offered = [*only, *(known if first else ())]
    find = partial(
        find_channels, model, example, coupled=coupled, named=offered, partly=partly, counts=counts
    )
    if transformer is None:
        found = find(closed=closed)
    elif isinstance(example, Tensor):
        found = _with_channels(transformer, model, closed, find)
    else:
        found = transformer
    return _restricted(found, only)


def _with_channels(
    units: Units, model: nn.Module, closed: Mapping[str, Reason], find: Callable[..., Units]
) -> Units:
    """A transformer's units and, where it is not only one, the channels of its other stages.

    Args:
        units: heads and neurons, and what they leave.
        model: the model.
        closed: what else to leave alone, with the reason.
        find: :func:`coprune.groups.channels.find_channels` of the model.
    """
    outside = {s.layer for s in units.skipped if s.code == SkipCode.OUTSIDE}
    reasons = {o: because(SkipCode.INSIDE, layer=n).of(o) for o in outside for n in closed if within(o, (n,))}
    outside -= reasons.keys()
    if not outside:
        return units
    owned = set[str]().union(*(group.own for group in units.groups))
    closed = dict.fromkeys([*owned, *closed], because(SkipCode.MEETS_BLOCKS))
    try:
        found = find(closed=closed, among=outside)
    except UserError as cause:
        why = because(SkipCode.NOT_TRACED, cause=cause)
        found = Units((), tuple(why.of(layer) for layer in outside))
    reasons = {s.layer: s for s in found.skipped} | reasons
    order = {name: at for at, (name, _) in enumerate(model.named_modules())}
    groups = sorted((*units.groups, *found.groups), key=lambda g: order[g.producers[0]])
    made = set[str]().union(*(group.own for group in found.groups))
    left = [s for s in units.skipped if s.layer not in made]
    skipped = (reasons.get(s.layer, s) if s.code is SkipCode.OUTSIDE else s for s in left)
    return Units(tuple(groups), tuple(skipped))


def _restricted(units: Units, only: Sequence[str]) -> Units:
    """The groups that some of the layers make or carry."""
    if not only:
        return units
    kept = tuple(g for g in units.groups if any(within(layer, only) for layer in g.own))
    left = (layer for g in units.groups if g not in kept for layer in g.producers)
    return Units(kept, (*(because(SkipCode.NOT_ONLY).of(layer) for layer in left), *units.skipped))
