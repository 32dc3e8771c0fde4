"""Channel least squares: what reads removed channels takes what they said from the kept ones.

Each layer by itself, as it is in the unpruned network. With x what a layer reads, K its kept and R its
removed channels, A, a = argmin ‖x_R − A x_K − a‖² over places, and in every position of its kernel

    W'_K = W_K + W_R A,    b' = b + W_R a.

What is wrong in front of a layer stays wrong, so errors pile up; what mends that is
:mod:`coprune.recovery.sequential_least_squares`.
Systems are n × n where those are k²n × k²n. With one entry a row of A it is neuron merging (Kim et al.
2020, arXiv 2010.13160).

Shapes: ``N`` samples, ``P`` places a sample, ``C`` channels that a layer reads, ``S`` values of a channel,
``M`` rows, ``O`` output channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.subsample import spread
from coprune.errors import UserError, setting
from coprune.groups import channel_indices, removed
from coprune.layers import filters, is_linear
from coprune.plan import GroupDecision, Member
from coprune.progress import track
from coprune.recovery.ridge import Target, solve
from coprune.recovery.sampling import BATCH, looked_at, own_samples
from coprune.recovery.sequential_least_squares import MEMORY, ROWS, LayerRecovery
from coprune.recovery.targets import side_by_side
from coprune.tracing.forward import Inputs, copied, logits_of, moved, part_of, samples_in, trimmed
from coprune.tracing.layer_graph import Site, find_sites
from coprune.tracing.patches import read_rows

WIDEST = 8192
"""Inputs of a linear layer behind a flattened map that are channels of their own; of a wider one the pixels
of a channel are taken together."""


@dataclass(frozen=True)
class Reading:
    """Which of what a layer reads is left.

    Attributes:
        inputs: the layer's inputs, a row a channel, ``[C, S]`` int64: S is 1 but for pixels taken together.
        alive: whether a channel is still there, ``[C]`` bool.
    """

    inputs: Tensor
    alive: Tensor


@torch.no_grad()
def channel_least_squares(
    model: nn.Module,
    teacher: nn.Module,
    source: Source,
    *,
    decisions: Sequence[GroupDecision],
    kept: Mapping[str, Tensor],
    seed: int = 0,
    rows: int = ROWS,
    memory: int = MEMORY,
    device: str = "cpu",
) -> tuple[LayerRecovery, ...]:
    """Give every layer that lost inputs the unpruned weights on the kept ones, solved again, in place.

    Args:
        model: pruned; left in evaluation mode.
        teacher: the unpruned model.
        source: calibration samples; labels are not read.
        decisions: what was cut.
        kept: layer → the output channels of the unpruned layer that it still has, ``[K]`` int64, for
            every layer that has lost some.
        seed: which places are looked at.
        rows: of a regression, about.
        memory: bytes that what layers read may take at once; one layer's is held whatever it takes.
        device: where to compute.

    Returns:
        An entry for every layer that lost inputs, in the order of the network. Errors are those of the
        removed channels, over their variation, on samples that the solver did not see. A layer of which A
        says less than nothing keeps the weights that surgery left.

    Raises:
        UserError: the models are not one network before and after surgery, channels have another order, or
            some are gone and no decision says so.
    """
    if kept and not decisions:
        raise UserError("channel least squares must be told what was cut; give the plan that cut it")
    model.to(device).eval()
    teacher.to(device).eval()
    inputs = moved(spread(source, len(source)), device)
    reads = readings(teacher, decisions)
    sites = [s for s in find_sites(teacher, part_of(inputs, slice(2))) if s.layer in reads]
    for site in sites:
        _check(model, teacher, site, reads[site.layer], kept.get(site.layer))
    mine, judging, shared = own_samples(samples_in(inputs))
    places: dict[str, Tensor] = {}
    for site in sites:
        wanted = max(1, rows // _each(teacher, site, reads[site.layer]))
        places |= looked_at(teacher, [site], inputs, rows=wanted, seed=seed, device=device)
    places = {name: at[mine.to(at.device)] for name, at in places.items()}
    inputs = part_of(inputs, mine)

    def seen() -> Iterator[tuple[Site, Tensor]]:
        for together in _that_fit(sites, teacher, places, reads, memory=memory):
            found = _read(teacher, together, inputs, places, reads)
            for site in together:
                yield site, found.pop(site.layer)

    return tuple(
        _resolve(
            model,
            teacher,
            site,
            read,
            reads[site.layer],
            kept,
            held_back=len(read) // len(mine) * judging,
            shared=shared,
        )
        for site, read in track(seen(), label="channel least squares", total=len(sites))
    )


def readings(teacher: nn.Module, decisions: Iterable[GroupDecision]) -> dict[str, Reading]:
    """Layer → which of its inputs are left, for layers that lost some.

    Args:
        teacher: the unpruned model.
        decisions: what was cut.
    """
    found: dict[str, list[tuple[GroupDecision, Member]]] = {}
    for decision in decisions:
        if len(decision.kept) == decision.size:
            continue
        for member in decision.members:
            if member.role == "consumer" and member.parameter is None:
                found.setdefault(member.layer, []).append((decision, member))
    return {layer: _reading(teacher.get_submodule(layer), parts) for layer, parts in found.items()}


def _reading(layer: nn.Module, parts: list[tuple[GroupDecision, Member]]) -> Reading:
    width = filters(layer).shape[1]
    alive = torch.ones(width, dtype=torch.bool)
    for decision, member in parts:
        alive[channel_indices(member, removed(decision.kept, decision.size))] = False
    decision, member = parts[0]
    if is_linear(layer) and decision.kind != "heads" and width > WIDEST and len(parts) == 1:
        pixels = channel_indices(member, torch.arange(decision.size)).view(decision.size, -1)
        if pixels.numel() == width:
            return Reading(pixels, alive[pixels[:, 0]])
    return Reading(torch.arange(width).unsqueeze(1), alive)


def _each(teacher: nn.Module, site: Site, reading: Reading) -> int:
    """Rows of a place: positions of a kernel, or pixels taken together."""
    weight = filters(teacher.get_submodule(site.layer))
    return math.prod(weight.shape[2:]) * reading.inputs.shape[1]


def _check(model: nn.Module, teacher: nn.Module, site: Site, reading: Reading, kept: Tensor | None) -> None:
    had = filters(teacher.get_submodule(site.layer)).shape
    has = filters(model.get_submodule(site.layer)).shape
    left = int(reading.alive.sum()) * reading.inputs.shape[1]
    if tuple(has) != (had[0] if kept is None else len(kept), left, *had[2:]):
        raise UserError(
            f"layer '{site.layer}' has weights of shape {list(has)}, which are not what the plan leaves of "
            f"{list(had)}; give the plan that cut it"
        )
    if kept is not None and bool((kept.diff() < 0).any()):
        raise UserError(
            f"layer '{site.layer}': its channels are in another order than the unpruned ones; "
            f"use {setting('recovery', 'least-squares')}"
        )


def _that_fit(
    sites: Sequence[Site],
    teacher: nn.Module,
    places: Mapping[str, Tensor],
    reads: Mapping[str, Reading],
    *,
    memory: int,
) -> Iterator[list[Site]]:
    """The layers, as many together as what they read fits into memory."""
    together: list[Site] = []
    left = memory
    for site in sites:
        weight = filters(teacher.get_submodule(site.layer))
        rows = places[site.layer].numel() * site.runs * _each(teacher, site, reads[site.layer])
        size = rows * len(reads[site.layer].inputs) * weight.element_size()
        if together and left < size:
            yield together
            together, left = [], memory
        together.append(site)
        left -= size
    if together:
        yield together


def _read(
    teacher: nn.Module,
    sites: Sequence[Site],
    inputs: Inputs,
    places: Mapping[str, Tensor],
    reads: Mapping[str, Reading],
) -> dict[str, Tensor]:
    """Layer → what its channels say at its places, ``[M, C]``, sample after sample."""
    found: dict[str, list[Tensor]] = {site.layer: [] for site in sites}
    runs: dict[str, list[Tensor]] = {}
    here = slice(0, 0)
    with ExitStack() as hooks:
        for site in sites:

            def note(layer: nn.Module, args: tuple[Tensor, ...], name: str = site.layer) -> None:
                rows = read_rows(layer, args[0], places[name][here])
                index = reads[name].inputs.to(rows.device)
                # A position of the kernel is a place like any other.
                values = rows.view(len(rows), filters(layer).shape[1], -1)[:, index]  # [N·P, C, S, b]
                runs.setdefault(name, []).append(values.flatten(2).transpose(1, 2).flatten(0, 1))

            hooks.enter_context(teacher.get_submodule(site.layer).register_forward_pre_hook(note))
        for start in range(0, samples_in(inputs), BATCH):
            here = slice(start, start + BATCH)
            batch = trimmed(part_of(inputs, here))
            logits_of(teacher, copied(batch))  # the first layer may work in place
            for name in list(runs):
                found[name].append(side_by_side(runs.pop(name), samples_in(batch)))
    return {name: torch.cat(found.pop(name)) for name in list(found)}


def _resolve(
    model: nn.Module,
    teacher: nn.Module,
    site: Site,
    read: Tensor,
    reading: Reading,
    kept: Mapping[str, Tensor],
    *,
    held_back: int,
    shared: bool,
) -> LayerRecovery:
    """Regress one layer's removed channels on the kept ones, and put A and a into its weights."""
    layer, before = model.get_submodule(site.layer), teacher.get_submodule(site.layer)
    alive = reading.alive.to(read.device)
    norm = model.get_submodule(site.norm) if site.norm else None
    bias = before.bias
    gone = read[:, ~alive]
    one, nothing = torch.ones_like(gone[0]), torch.zeros_like(gone[0])
    solution = solve(
        read[:, alive],
        Target(gone, one, nothing),
        torch.zeros(gone.shape[1], int(alive.sum()), dtype=torch.float64, device=read.device),
        nothing.double(),
        held_back=held_back,
        intercept=isinstance(bias, Tensor) or norm is not None,
        shared=shared,
    )
    if solution.better:
        index = reading.inputs.to(read.device)
        whole = filters(before).double()
        whole = whole.reshape(len(whole), whole.shape[1], -1)[:, index]  # [O, C, S, b]
        there, away = whole[:, alive], whole[:, ~alive]
        there = (there + torch.einsum("orsb,rk->oksb", away, solution.weight)).flatten(1, 2)
        shift = torch.einsum("orsb,r->o", away, solution.bias)
        order = index[alive].flatten().argsort()
        outputs = kept.get(site.layer, torch.arange(len(whole))).to(read.device)
        weight = filters(layer)
        weight.copy_(there[outputs][:, order].view(weight.shape))
        if isinstance(bias, Tensor):
            layer.get_parameter("bias").copy_(bias.double()[outputs] + shift[outputs])
        elif norm is not None:
            # y + b in front of a norm is y with a running mean less by b.
            norm.get_buffer("running_mean").sub_(shift[outputs])
    return LayerRecovery(site.layer, solution.before, solution.after, solution.better, solution.ridge)
