"""Sequential patch least squares: every dense layer solved again on what the pruned network feeds it.

One walk through the network, in the order in which it runs. Each dense layer's weights are set so
that, on what the layers before it (already solved) now feed it, the network says what the unpruned
one said at that place: behind the layer's batch norm and, at a residual sum, behind the sum, so that
the layer also makes up for the error that the skip path carries. Errors do not pile up, nothing is
trained and no label is read. What a depthwise layer cannot absorb, the next dense one does.

A layer that runs several times (ALBERT) has one set of weights for all of its runs, which feed one another.
Where the walk meets such layers, they are solved one after the other, on all of their runs at once, and then
once more, since the first of them did not know what the others would become.

The idea of re-solving a consumer is ThiNet's (arXiv 1707.06342) and OSSCAR's (arXiv 2403.12983); new
here are the walk, the sum's correction and the rectifier (see :mod:`coprune.recovery.ridge`).

The processes of a run share out the samples. Each walks through the network with its own, and what a
layer's regression adds up is added up over all of them, so that all solve the same equations.

Shapes: ``N`` samples, ``P`` places a sample, ``K`` kept output channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.errors import UserError
from coprune.layers import filters, is_linear
from coprune.progress import track
from coprune.recovery.layer_walk import visit_sites
from coprune.recovery.ridge import Solution, Target, solve
from coprune.recovery.sampling import BATCH, looked_at, own_samples, parts_of, samples_that_fit
from coprune.recovery.targets import Targets, norm_line, side_by_side
from coprune.tracing.forward import Inputs, moved, part_of, samples_in, trimmed
from coprune.tracing.layer_graph import Site, paired_sites
from coprune.tracing.patches import pick_outputs, read_rows

ROWS = 24_000
"""Rows of a regression: 24 places of each of 1,000 images. Twice as many gain 2 % of the divergence."""

MEMORY = 3 << 30
"""Bytes that the samples of the walk may take at its worst moment, and beside them the targets."""

_SWEEPS = 2
"""Over layers that run several times; a third changes nothing."""


@dataclass(frozen=True)
class LayerRecovery:
    """What the walk did to one layer.

    Attributes:
        layer: module name.
        before, after: error of its old and of its new weights behind norm, sum and rectifier, on
            samples that the solver did not see, over the variation of what is wanted there.
        changed: whether it was given the new weights: they were better there.
        ridge: the λ that was chosen.
    """

    layer: str
    before: float
    after: float
    changed: bool
    ridge: float


@torch.no_grad()
def least_squares(
    model: nn.Module,
    teacher: nn.Module,
    source: Source,
    *,
    kept: Mapping[str, Tensor],
    seed: int = 0,
    rows: int = ROWS,
    memory: int = MEMORY,
    device: str = "cpu",
) -> tuple[LayerRecovery, ...]:
    """Solve every dense layer of a pruned model again, in place.

    The samples pass the pruned model once, side by side; as many are taken (evenly spread) as fit
    into ``memory``, and the fewer they are, the more places of each are looked at. The unpruned model is
    asked as often as its answers need, to fit into as much again.

    Args:
        model: pruned; left in evaluation mode.
        teacher: the unpruned model.
        source: calibration samples; labels are not read.
        kept: layer → the output channels of the unpruned layer that it still has, ``[K]`` int64, for
            every layer that has lost some.
        seed: which places are looked at.
        rows: of a regression, about.
        memory: bytes.
        device: where to compute.

    Returns:
        An entry for every layer that was solved, in the order in which they were.

    Raises:
        UserError: the models are not one network before and after surgery.
    """
    model.to(device).eval()
    teacher.to(device).eval()
    inputs = moved(samples_that_fit(source, teacher, memory=memory), device)
    walk = _pairs(model, teacher, part_of(inputs, slice(2)), kept)
    sites = [site for site, _, _ in walk]
    places = looked_at(teacher, sites, inputs, rows=rows, seed=seed, device=device)
    mine, judging, shared = own_samples(samples_in(inputs))
    inputs, places = _taken(inputs, places, mine)
    order, parts = parts_of(inputs, judging=judging)
    inputs, places = _taken(inputs, places, order)
    batches = [trimmed(part_of(inputs, part)) for part in parts]
    targets = Targets(teacher, walk, inputs, places, memory=memory)
    found: dict[str, LayerRecovery] = {}
    steps = sum(1 if site.runs == 1 else _SWEEPS for site in sites)
    bar = iter(track(range(steps), label="least squares", total=steps))
    read: dict[str, list[list[Tensor]]] = {}
    beside: dict[str, list[Tensor]] = {}

    def note(site: Site, layer: nn.Module, layer_inputs: Tensor, _: Tensor | None, part: int) -> None:
        runs = read.setdefault(site.layer, [[] for _ in parts])[part]
        runs.append(_rows(layer, layer_inputs, places[site.layer][parts[part]]))

    def resolve(site: Site) -> None:
        next(bar, None)
        runs, other = read.pop(site.layer), beside.pop(site.layer, None)
        seen = _joined(
            [side_by_side(r, len(places[site.layer][p])) for r, p in zip(runs, parts, strict=True)]
        )
        held_back = judging * site.runs * places[site.layer].shape[1]
        done = _resolve(
            model,
            site,
            seen,
            targets.take(site),
            None if other is None else _joined(other),
            held_back=held_back,
            shared=shared,
        )
        first = found.get(site.layer, done)
        found[site.layer] = replace(done, before=first.before, changed=first.changed or done.changed)

    def visit(site: Site, layer: nn.Module, layer_inputs: Tensor, other: Tensor | None, part: int) -> None:
        note(site, layer, layer_inputs, other, part)
        if other is not None:
            at = places[site.layer][parts[part]]
            beside.setdefault(site.layer, []).append(pick_outputs(other, at, last=is_linear(layer)))
        if part == len(parts) - 1:
            resolve(site)

    try:
        for once, part in groupby(sites, lambda site: site.runs == 1):
            together = list(part)
            if once:
                visit_sites(model, together, batches, visit)
            for site in [] if once else together * _SWEEPS:
                visit_sites(model, [site], batches, note)
                resolve(site)
    finally:
        bar.close()  # type: ignore[attr-defined]
    return tuple(found.values())


def _taken(inputs: Inputs, places: dict[str, Tensor], index: Tensor) -> tuple[Inputs, dict[str, Tensor]]:
    """Some samples and where to look at them; no copy when they are all there are."""
    if torch.equal(index, torch.arange(samples_in(inputs))):
        return inputs, places
    return part_of(inputs, index), {name: at[index.to(at.device)] for name, at in places.items()}


def _pairs(
    model: nn.Module, teacher: nn.Module, example: Inputs, kept: Mapping[str, Tensor]
) -> list[tuple[Site, Site, Tensor | None]]:
    """Every dense layer's site in both models, and which of the teacher's channels it has."""
    walk = []
    for site, full in paired_sites(model, teacher, example):
        has, had = (len(filters(m.get_submodule(site.layer))) for m in (model, teacher))
        index = kept.get(site.layer)
        if (had if index is None else len(index)) != has:
            raise UserError(
                f"layer '{site.layer}' has {has} of {had} channels, and it is not known which; "
                "give the plan that cut it"
            )
        walk.append((site, full, index if has < had else None))
    return walk


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _rows(layer: nn.Module, inputs: Tensor, at: Tensor) -> Tensor:
    """What the layer reads at all places, ``[N·P, D]``, a few samples at a time."""
    windows = len(inputs) // len(at)
    parts = zip(inputs.split(windows * BATCH), at.split(BATCH), strict=True)
    return torch.cat([read_rows(layer, x, p) for x, p in parts])


def _resolve(
    model: nn.Module,
    site: Site,
    read: Tensor,
    value: Tensor,
    other: Tensor | None,
    *,
    held_back: int,
    shared: bool,
) -> LayerRecovery:
    """Solve one layer and give it the new weights where they are better."""
    layer = model.get_submodule(site.layer)
    scale, shift = norm_line(model, site, layer)
    weight, bias = filters(layer), layer.bias
    norm = model.get_submodule(site.norm) if site.norm else None
    # What a norm scales by 0 has no say and no target.
    live = scale.abs() > 1e-6 * scale.abs().max().clamp_min(1e-30)
    old = weight.double().flatten(1)[live]
    added = bias.double()[live] if isinstance(bias, Tensor) else torch.zeros_like(old[:, 0])
    target = Target(
        value[:, live], scale[live], shift[live], None if other is None else other[:, live], site.rectified
    )
    solution: Solution = solve(
        read,
        target,
        old,
        added,
        held_back=held_back,
        intercept=isinstance(bias, Tensor) or norm is not None,
        shared=shared,
    )
    if solution.better:
        weight[live] = solution.weight.view(len(old), *weight.shape[1:]).to(weight.dtype)
        if isinstance(bias, Tensor):
            bias[live] = solution.bias.to(bias.dtype)
        elif norm is not None:
            # y + b in front of a norm is y with a running mean less by b.
            norm.get_buffer("running_mean")[live] -= solution.bias.to(weight.dtype)
    return LayerRecovery(site.layer, solution.before, solution.after, solution.better, solution.ridge)
