"""Channel least squares: layers that read removed channels reconstruct them from the kept ones.

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.subsample import spread
from coprune.errors import UserError, setting
from coprune.groups import channel_indices
from coprune.layers import bias_of, filters, is_convolution, is_linear, set_filters
from coprune.plan import GroupDecision
from coprune.progress import track
from coprune.recovery.base import LayerRecovery, Pair, Recovered
from coprune.recovery.batchnorm import reestimate_batchnorm
from coprune.recovery.channel_map import Share, removed_inputs
from coprune.recovery.layer_walk import can_shift, rows_of, shift_output, that_fit
from coprune.recovery.ridge import Line, Target, solve
from coprune.recovery.sampling import Sample, drawn
from coprune.recovery.sequential_least_squares import MEMORY, ROWS
from coprune.tracing.forward import moved, part_of
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


def recover(pair: Pair, source: Source, *, seed: int = 0) -> Recovered:
    """See :func:`channel_least_squares`; batch norms are re-estimated after it."""
    layers = channel_least_squares(pair, source, seed=seed)
    norms = reestimate_batchnorm(pair.model, source, device=pair.device)
    return Recovered(True, norms > 0 or any(layer.changed for layer in layers), layers)


@torch.no_grad()
def channel_least_squares(
    pair: Pair, source: Source, *, seed: int = 0, rows: int = ROWS, memory: int = MEMORY
) -> tuple[LayerRecovery, ...]:
    """Give every layer that lost inputs the unpruned weights on the kept ones, solved again, in place.

    Args:
        pair: its model is left in evaluation mode.
        source: calibration samples; labels are not read.
        seed: of the drawn places.
        rows: of a regression, about.
        memory: bytes that what layers read may take at once; one layer's is held whatever it takes.

    Returns:
        An entry for every layer that lost inputs, in the order of the network. Errors are those of the
        removed channels, over their variation, on samples that the solver did not see. A layer whose A
        predicts worse than the mean keeps the weights that surgery left.

    Raises:
        UserError: the models are not one network before and after surgery, channels have another order, or
            some are gone by no decision.
    """
    if pair.kept and not pair.decisions:
        raise UserError("channel least squares must be told what was cut; give the plan that cut it")
    _, teacher = pair.ready()
    inputs = moved(spread(source, len(source)), pair.device)
    reads = readings(teacher, pair.decisions)
    found = find_sites(teacher, part_of(inputs, slice(2)))
    sites = [replace(site, other=None) for site in found if site.layer in reads]
    for site in sites:
        _check(pair, site, reads[site.layer])
    weights = {site.layer: filters(teacher.get_submodule(site.layer)) for site in sites}
    # Rows of a place: positions of a kernel, or pixels taken together.
    each = {n: math.prod(w.shape[2:]) * reads[n].inputs.shape[1] for n, w in weights.items()}
    wanted = {name: max(1, rows // count) for name, count in each.items()}
    sample = drawn(pair, sites, inputs, rows=wanted, seed=seed)

    def size(site: Site) -> int:
        count = sample.places[site.layer].numel() * site.runs * each[site.layer]
        return count * len(reads[site.layer].inputs) * weights[site.layer].element_size()

    def channels(site: Site, layer: nn.Module, read: Tensor, _: Tensor | None, at: Tensor) -> Tensor:
        values = read_rows(layer, read, at)
        values = values.view(len(values), filters(layer).shape[1], -1)
        # A position of the kernel is a place like any other.
        values = values[:, reads[site.layer].inputs.to(values.device)]  # [N·P, C, S, b]
        return values.flatten(2).transpose(1, 2).flatten(0, 1)

    def solved() -> Iterator[LayerRecovery]:
        for together in that_fit(sites, size, memory=memory):
            read = rows_of(teacher, together, sample, channels)
            for site in together:
                yield _resolve(pair, site, reads[site.layer], read.pop(site.layer), sample)

    return tuple(track(solved(), label="channel least squares", total=len(sites)))


def readings(teacher: nn.Module, decisions: Iterable[GroupDecision]) -> dict[str, Reading]:
    """Layer → which of its inputs are left, for layers that lost some.

    Args:
        teacher: the unpruned model.
        decisions: what was cut.
    """
    gone = removed_inputs(decisions).items()
    return {layer: _reading(teacher.get_submodule(layer), parts) for layer, parts in gone}


def _reading(layer: nn.Module, parts: list[Share]) -> Reading:
    width = filters(layer).shape[1]
    alive = torch.ones(width, dtype=torch.bool)
    alive[torch.cat([channels for _, _, channels in parts])] = False
    decision, member, _ = parts[0]
    if is_linear(layer) and decision.kind != "heads" and width > WIDEST and len(parts) == 1:
        pixels = channel_indices(member, torch.arange(decision.size)).view(decision.size, -1)
        if pixels.numel() == width:
            return Reading(pixels, alive[pixels[:, 0]])
    return Reading(torch.arange(width).unsqueeze(1), alive)


def _check(pair: Pair, site: Site, reading: Reading) -> None:
    had, has = (filters(m.get_submodule(site.layer)).shape for m in (pair.teacher, pair.model))
    kept = pair.kept.get(site.layer)
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


def _resolve(pair: Pair, site: Site, reading: Reading, read: Tensor, sample: Sample) -> LayerRecovery:
    """Regress one layer's removed channels ``[M, C]`` on the kept ones, and put A and a into its weights."""
    layer, before = pair.model.get_submodule(site.layer), pair.teacher.get_submodule(site.layer)
    alive = reading.alive.to(read.device)
    gone = read[:, ~alive]
    one, nothing = torch.ones_like(gone[0]), torch.zeros_like(gone[0])
    blank = torch.zeros(gone.shape[1], int(alive.sum()), dtype=torch.float64, device=read.device)
    solution = solve(
        read[:, alive],
        Target(gone, one, nothing),
        Line(blank, nothing.double()),
        held_back=sample.held_back(read),
        # What a transposed convolution adds up at a place is not the same at all of them.
        intercept=can_shift(site, before) and not (is_convolution(before) and before.transposed),
        shared=sample.shared,
    )
    if solution.better:
        index = reading.inputs.to(read.device)
        whole = filters(before).double()
        whole = whole.reshape(len(whole), whole.shape[1], -1)[:, index]  # [O, C, S, b]
        there, away = whole[:, alive], whole[:, ~alive]
        there = (there + torch.einsum("orsb,rk->oksb", away, solution.weight)).flatten(1, 2)
        order = index[alive].flatten().argsort()
        outputs = pair.kept.get(site.layer, torch.arange(len(whole))).to(read.device)
        weight = filters(layer)
        bias = bias_of(before)
        kept = there[outputs][:, order].view(weight.shape)
        set_filters(layer, kept, None if bias is None else bias[outputs])
        shift_output(pair.model, site, torch.einsum("orsb,r->o", away, solution.bias)[outputs])
    return LayerRecovery(site.layer, solution.before, solution.after, solution.better, solution.ridge)
