"""Find attention heads and feed-forward neurons by the table of families.

No tracing: a head is a block of rows of the query, key and value projections and of columns of the
output projection, whatever happens in between. That holds for the families of
:mod:`coprune.groups.families`, whose forward passes were read for it.

Shapes: ``U`` units of a group.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from coprune.errors import setting
from coprune.groups.families import (
    ATTENTIONS,
    FEED_FORWARDS,
    FIXED_WIDTH,
    AttentionFamily,
    FeedForwardFamily,
    Projection,
    Refusal,
)
from coprune.groups.group import ChannelGroup, Units
from coprune.layers import Side, channel_count, is_convolution, is_linear
from coprune.plan import Member
from coprune.skipped import Reason, SkipCode, because

_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "num_key_value_groups")


def find_transformer_units(model: nn.Module, *, skip: Sequence[str] = ()) -> Units | None:
    """Attention heads and feed-forward neurons of a transformer, and the layers left alone.

    Args:
        model: inspected, never called.
        skip: module names to leave alone; a container stands for all layers inside it.

    Returns:
        One group of heads an attention module (key/value heads with grouped queries), one of neurons
        a feed-forward block, in the order of the network, each of two units at least; None when the model
        has no attention whose heads are known.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    groups, refused = _groups(modules)
    if not groups:
        return None
    left, kept = {**dict(_rest(model, groups)), **refused}, []
    for group in groups:
        if any(within(layer, skip) for layer in group.own):
            left |= dict.fromkeys(group.producers, because(SkipCode.ASKED))
        elif group.size < 2:
            one = because(SkipCode.SINGLE, unit=group.kind.removesuffix("s"))
            left |= dict.fromkeys(group.producers, one)
        else:
            kept.append(group)
    return Units(tuple(kept), tuple(left[layer].of(layer) for layer in modules if layer in left))


def unknown_heads(model: nn.Module, *, skip: Sequence[str] = ()) -> dict[str, Reason]:
    """Attention modules whose heads cannot be told apart, with the reason and the way out.

    Args:
        model: inspected, never called.
        skip: module names to leave alone anyway.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    return {
        name: because(
            SkipCode.UNKNOWN_HEADS,
            layer=name,
            kind=type(modules[name]).__name__,
            cause=why,
            skip=setting("skip", (name,)),
        )
        for name, why in _groups(modules)[1].items()
        if not within(name, skip)
    }


def attention_family(name: str, module: nn.Module) -> AttentionFamily | None:
    """The table's entry for an attention module, or None.

    Args:
        name: the module's full name in its model.
        module: any module.
    """
    called = (None, name.rpartition(".")[2])
    return next((f for f in ATTENTIONS if f.called in called and _is_of(f, module)), None)


def within(layer: str, names: Sequence[str]) -> bool:
    """Whether a layer is one of the names, or inside one of them."""
    return any(layer == name or layer.startswith(f"{name}.") for name in names)


def channels_of(layer: nn.Module, side: Side) -> int | None:
    """How many channels a linear layer reads or makes; None for other layers."""
    return channel_count(layer, side) if is_linear(layer) else None


def _is_of(family: AttentionFamily | FeedForwardFamily, module: nn.Module) -> bool:
    kind = type(module)
    parts, home = kind.__module__.split("."), [part for part in family.home.split(".") if part]
    named = any(fnmatchcase(kind.__name__, pattern) for pattern in family.classes)
    return named and parts[: len(home)] == home and (not family.tried or _has_parts(family, module))


def _has_parts(family: AttentionFamily | FeedForwardFamily, module: nn.Module) -> bool:
    """Whether a module has the linear layers, and the head's size, that a family that is tried has."""
    inside = dict(module.named_modules())
    if isinstance(family, AttentionFamily):
        names = [n for n in (*(p.layer for p in family.projections), family.out) if not n.startswith("../")]
        sized = isinstance(getattr(module, family.head_size, None), int)
        return sized and all(channels_of(inside.get(name, module), "output") for name in names)
    second = channels_of(inside.get(family.second, module), "input") or 0
    widths = {channels_of(inside.get(name, module), "output") for name in family.first}
    return bool(second) and widths == {second * family.parts}


def _groups(modules: Mapping[str, nn.Module]) -> tuple[tuple[ChannelGroup, ...], dict[str, Reason]]:
    """All groups in the order of the network, and modules that are left alone, with the reason.

    Args:
        modules: name → module, ``""`` the model, all names of a shared one.
    """
    model = modules[""]
    heads: list[ChannelGroup] = []
    neurons: list[ChannelGroup] = []
    refused: dict[str, Reason] = {}
    foreign: dict[str, Reason] = {}
    attention = False
    present = {type(module).__name__ for module in model.modules()}
    for name, module in model.named_modules():
        family = attention_family(name, module)
        if isinstance(module, nn.MultiheadAttention):
            attention, refused[name] = True, because(SkipCode.FAMILY, cause=FIXED_WIDTH)
        elif family is not None:
            attention = True
            other = next((r for r in family.unless_present if r.attribute in present), None)
            found = _refusal(module, family.unless, other) or _heads(name, module, family, modules)
            if isinstance(found, Reason):
                refused[name] = found
            else:
                heads.append(found)
        elif _looks_like_attention(module):
            foreign[name] = because(SkipCode.UNKNOWN_FAMILY, kind=type(module).__name__)
        block = next((f for f in FEED_FORWARDS if _is_of(f, module)), None)
        # As convolutions, such blocks are traced like any other.
        size = channels_of(modules[relative(name, block.second)], "input") if block else None
        if block is not None and size:
            reason = _refusal(module, block.unless)
            first = [relative(name, layer) for layer in block.first]
            if reason is not None:
                refused |= dict.fromkeys(first, reason)
                continue
            shares = itertools.product(first, range(0, block.parts * size, size))
            members = [Member(layer=layer, role="producer", offset=offset) for layer, offset in shares]
            members.append(Member(layer=relative(name, block.second), role="consumer"))
            neurons.append(ChannelGroup(first[0], size, tuple(members), "neurons", block.tried))
    if not attention:
        return (), foreign
    order = {name: at for at, name in enumerate(modules)}
    groups = sorted([*_joined(heads), *neurons], key=lambda g: order[g.name])
    return tuple(groups), refused | foreign


def _refusal(module: nn.Module, unless: tuple[Refusal, ...], other: Refusal | None = None) -> Reason | None:
    """Why the units of a module depend on one another, by what it or another module has, if so."""
    parts = ((refusal, _part(module, refusal.attribute)) for refusal in unless)
    coupling = (r for r, p in parts if p is not None and p is not False and not isinstance(p, nn.Identity))
    other = other or next(coupling, None)
    return because(SkipCode.FAMILY, cause=other.reason) if other else None


def relative(name: str, path: str) -> str:
    """The full name of a layer that is named relative to a module."""
    while path.startswith("../"):
        name, path = name.rpartition(".")[0], path.removeprefix("../")
    return f"{name}.{path}" if name else path


def _heads(
    name: str, module: nn.Module, family: AttentionFamily, modules: Mapping[str, nn.Module]
) -> ChannelGroup | Reason:
    """The heads of one attention module, or why they cannot be told apart."""
    head_size = getattr(module, family.head_size) if family.head_size else 0
    out = relative(name, family.out)
    read = channels_of(modules[out], "input") if out in modules else None
    parts: list[tuple[str, int, int]] = []
    heads: list[int] = []
    for projection in family.projections:
        layer = relative(name, projection.layer)
        width = channels_of(modules[layer], "output") if layer in modules else None
        if width is None and projection.optional:
            continue
        if width is None:
            return because(SkipCode.NO_PROJECTION, layer=projection.layer)
        offset, part = _share(projection, width, read)
        if not head_size:
            head_size = part // head_counts(family, module)[family.scaled[0]]
        parts.append((layer, offset, part))
        heads.append(part // (head_size * projection.each))
    size = min(heads, default=0)
    if read is None or size < 1 or read % size or any(part % size for *_, part in parts):
        return because(SkipCode.UNEVEN_HEADS, layer=family.out, size=head_size)
    members = [Member(layer=n, role="producer", offset=at, span=part // size) for n, at, part in parts]
    # The module itself counts heads, computes with them, and may own parameters of theirs.
    members.append(Member(layer=name, role="carrier", span=head_size if family.parameters else 1))
    carriers = (relative(name, path) for path in family.carriers)
    members += [Member(layer=c, role="carrier") for c in carriers if c in modules and c != name]
    members.append(Member(layer=out, role="consumer", span=read // size))
    return ChannelGroup(name, size, tuple(members), "heads", family.tried)


def _share(projection: Projection, width: int, read: int | None) -> tuple[int, int]:
    """Where in a layer's output the meant part begins, and how wide it is."""
    if projection.parts == 3 and read is not None and width > read:
        rest = (width - read) // 2
        return ((0, read), (read, rest), (read + rest, rest))[projection.part]
    part = width // projection.parts
    return projection.part * part, part


def head_counts(family: AttentionFamily, module: nn.Module) -> dict[str, int]:
    """What counts a module's heads: ``scaled`` attribute → value, of those that it has."""
    found = {path: _part(module, path) for path in family.scaled}
    return {path: int(count) for path, count in found.items() if count is not None}


def _part(module: Any, path: str) -> Any:
    """What a module has, or one of its attributes (``config.heads``); None where it has no such thing."""
    return functools.reduce(lambda part, name: getattr(part, name, None), path.split("."), module)


def set_count(module: nn.Module, path: str, count: object) -> None:
    """Change such an attribute of one module; what it shares with others it then has a copy of."""
    owner: Any = module
    shared, _, name = path.rpartition(".")
    if shared:
        owner = copy.copy(getattr(module, shared))
        setattr(module, shared, owner)
    setattr(owner, name, count)


def _joined(groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """Groups that share a layer become one, under the name of the first."""
    joined: list[ChannelGroup] = []
    for group in groups:
        layers = {m.layer for m in group.members}
        other = next((g for g in joined if layers & {m.layer for m in g.members}), None)
        if other is None:
            joined.append(group)
        else:
            members = tuple(dict.fromkeys((*other.members, *group.members)))
            joined[joined.index(other)] = replace(other, members=members, tried=other.tried or group.tried)
    return joined


def _looks_like_attention(module: nn.Module) -> bool:
    """Whether a module that is in no entry of the table counts heads and projects."""
    if "attention" not in type(module).__name__.lower():  # diffusers' models warn of further questions
        return False
    counts = any(isinstance(getattr(module, a, None), int) for a in _COUNTS)
    return counts and any(channels_of(child, "output") for child in module.children())


def _rest(model: nn.Module, groups: Sequence[ChannelGroup]) -> Iterator[tuple[str, Reason]]:
    """Every layer with channels that makes no unit, with the reason."""
    made = {m.layer for g in groups for m in g.members if m.role != "consumer"}
    read = {m.layer for g in groups for m in g.of_role("consumer")}
    dense = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or is_convolution(module) or channels_of(module, "output")
    ]
    for name in (name for name in dense if name not in made):
        embeds = isinstance(model.get_submodule(name), nn.Embedding) or _embeds(name)
        last = SkipCode.OUTPUT if name == dense[-1] else SkipCode.OUTSIDE
        yield name, because(SkipCode.RESIDUAL if name in read else SkipCode.EMBEDDING if embeds else last)


def _embeds(name: str) -> bool:
    """Whether a layer makes embeddings, by its own or its module's name; a whole backbone may lie deeper."""
    return any("embed" in part for part in name.split(".")[-2:])
