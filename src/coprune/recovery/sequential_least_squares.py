"""Sequential patch least squares: every dense layer solved again on what the pruned network feeds it.

One walk through the network, in the order in which it runs. Each dense layer's weights are set so
that, on what the layers before it (already solved) now feed it, the network puts out what the unpruned
one did at that place: behind the layer's batch norm and, at a residual sum, behind the sum, so that
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

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.errors import UserError
from coprune.layers import bias_of, filters, is_linear, set_filters
from coprune.progress import track
from coprune.recovery.base import LayerRecovery, Pair, Recovered
from coprune.recovery.layer_walk import Targets, can_shift, norm_line, rows_of, shift_output, walk_layers
from coprune.recovery.ridge import Line, Target, solve
from coprune.recovery.sampling import BATCH, Sample, drawn, samples_that_fit
from coprune.tracing.execution import run_for_some
from coprune.tracing.forward import Inputs, part_of
from coprune.tracing.layer_graph import Site, paired_sites
from coprune.tracing.patches import pick_outputs, read_rows

ROWS = 24_000
"""Rows of a regression: 24 places of each of 1,000 images. Twice as many gain 2 % of the divergence."""

MEMORY = 3 << 29
"""Bytes that the samples of the walk may take at its worst moment; beside them the targets take half that."""

_FEW = 13
"""Samples that show which layers read some only; seldom a layer's width (:func:`run_for_some`)."""

_SWEEPS = 2
"""Over layers that run several times; a third changes nothing."""


def recover(pair: Pair, source: Source, *, seed: int = 0) -> Recovered:
    """See :func:`least_squares`."""
    layers = least_squares(pair, source, seed=seed)
    return Recovered(True, any(layer.changed for layer in layers), layers)


@torch.no_grad()
def least_squares(
    pair: Pair, source: Source, *, seed: int = 0, rows: int = ROWS, memory: int = MEMORY
) -> tuple[LayerRecovery, ...]:
    """Solve every dense layer of a pruned model again, in place.

    The samples pass the pruned model once, and wait for one another in front of every layer; as many are
    taken (evenly spread) as fit into ``memory``, and the fewer they are, the more places of each are drawn.
    The unpruned model runs as often as its outputs need, to fit into half as much.

    Args:
        pair: its model is left in evaluation mode.
        source: calibration samples; labels are not read.
        seed: of the drawn places.
        rows: of a regression, about.
        memory: bytes.

    Returns:
        An entry for every layer that was solved, in the order in which they were. Errors are those behind
        norm, sum and rectifier.

    Raises:
        UserError: the models are not one network before and after surgery.
    """
    model, teacher = pair.ready()
    inputs, at_once = samples_that_fit(source, teacher, memory=memory)
    some = _run_for_some(teacher, inputs)
    every = paired_sites(model, teacher, part_of(inputs, slice(2)))
    pairs = [(site, full) for site, full in every if site.layer not in some]
    sites = [site for site, _ in pairs]
    _check_kept(pair, sites)
    sample = drawn(pair, sites, inputs, rows={site.layer: rows for site in sites}, seed=seed)
    sample = replace(sample, at_once=at_once)
    total = sum(1 if site.runs == 1 else _SWEEPS for site in sites)
    targets = Targets(pair, [full for _, full in pairs], sample, memory=memory // 2)
    with closing(track(range(total), label="least squares", total=total)) as bar:
        walk = _Walk(model, sample, targets, bar)
        for once, part in groupby(sites, lambda site: site.runs == 1):
            solve_all = walk.solve_on_the_way if once else walk.solve_by_turns
            solve_all(list(part))
    return tuple(walk.found.values())


def _run_for_some(teacher: nn.Module, inputs: Inputs) -> set[str]:
    """Layers that read some of the samples only: nobody knows which places they have in others."""
    few = [part_of(inputs, slice(count)) for count in (1, _FEW)]
    return run_for_some(teacher, few) if all(isinstance(x, Tensor) for x in few) else set()


def _check_kept(pair: Pair, sites: Iterable[Site]) -> None:
    """Refuse a layer of which it is not known what channels it has."""
    for name in (site.layer for site in sites):
        has, had = (len(filters(m.get_submodule(name))) for m in (pair.model, pair.teacher))
        if len(pair.kept.get(name, range(had))) != has:
            raise UserError(
                f"layer '{name}' has {has} of {had} channels, and it is not known which; "
                "give the plan that cut it"
            )


class _Walk:
    """Passes through the pruned model, in which layers are solved on what those before them now feed them."""

    def __init__(self, model: nn.Module, sample: Sample, targets: Targets, bar: Iterator[int]) -> None:
        self._model, self._sample, self._targets, self._bar = model, sample, targets, bar
        self.found: dict[str, LayerRecovery] = {}

    def solve_on_the_way(self, sites: list[Site]) -> None:
        """Layers that run once, all in one pass."""
        parts = self._sample.parts()
        rows: list[Tensor] = []
        others: list[Tensor] = []

        def note(site: Site, layer: nn.Module, read: Tensor, other: Tensor | None, part: int) -> None:
            at = self._sample.places[site.layer][parts[part][0]]
            rows.append(_read(site, layer, read, None, at))
            if other is not None:
                others.append(pick_outputs(other, at, last=is_linear(layer)))

        def solve_it(site: Site) -> None:
            read, other = torch.cat(rows), torch.cat(others) if others else None
            rows.clear()
            others.clear()
            self._solve(site, read, other)

        walk_layers(self._model, sites, [inputs for _, inputs in parts], note, met=solve_it)

    def solve_by_turns(self, sites: list[Site]) -> None:
        """Layers that run several times, each on all of its runs."""
        for site in sites * _SWEEPS:
            self._solve(site, rows_of(self._model, [site], self._sample, _read)[site.layer], None)

    def _solve(self, site: Site, rows: Tensor, other: Tensor | None) -> None:
        """Solve one layer on what it reads and give it the new weights where they are better."""
        next(self._bar, None)
        layer = self._model.get_submodule(site.layer)
        scale, shift = norm_line(self._model, site, layer)
        weight, bias = filters(layer), bias_of(layer)
        # What a norm scales by 0 has no effect and no target.
        live = scale.abs() > 1e-6 * scale.abs().max().clamp_min(1e-30)
        old = weight.double().flatten(1)[live]
        added = bias.double()[live] if bias is not None else torch.zeros_like(old[:, 0])
        value, other = self._targets.take(site)[:, live], None if other is None else other[:, live]
        solution = solve(
            rows,
            Target(value, scale[live], shift[live], other, site.rectified),
            Line(old, added),
            held_back=self._sample.held_back(rows),
            intercept=can_shift(site, layer),
            shared=self._sample.shared,
        )
        if solution.better:
            weight[live] = solution.weight.view(len(old), *weight.shape[1:]).to(weight.dtype)
            set_filters(layer, weight)
            more = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
            more[live] = solution.bias - added
            shift_output(self._model, site, more)
        done = LayerRecovery(site.layer, solution.before, solution.after, solution.better, solution.ridge)
        first = self.found.get(site.layer, done)
        self.found[site.layer] = replace(done, before=first.before, changed=first.changed or done.changed)


def _read(site: Site, layer: nn.Module, read: Tensor, other: Tensor | None, at: Tensor) -> Tensor:
    """What the layer reads at all places, ``[N·P, D]``, a few samples at a time."""
    windows = len(read) // len(at)
    parts = zip(read.split(windows * BATCH), at.split(BATCH), strict=True)
    return torch.cat([read_rows(layer, x, p) for x, p in parts])
