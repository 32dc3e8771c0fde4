"""Walks through a network, layer by layer, and what the unpruned one puts out there.

Shapes: ``N`` samples, ``P`` places a sample, ``R`` runs of a layer, ``O`` its outputs, ``K`` those kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coprune.errors import UserError, setting
from coprune.layers import bias_of, filters, is_linear, made_of, samples_first, set_filters
from coprune.recovery.sampling import BATCH, Sample
from coprune.tracing.call_trace import Place, Taps
from coprune.tracing.forward import Inputs, copied, part_of, run, samples_in, trimmed
from coprune.tracing.hooks import hooked
from coprune.tracing.layer_graph import Site
from coprune.tracing.patches import pick_outputs

Observer = Callable[[Site, nn.Module, Tensor, "Tensor | None"], None]
"""Given site, layer, what the layer reads (or puts out), and the other operand of the sum behind it."""


@torch.no_grad()
def walk_layers(
    model: nn.Module, sites: Sequence[Site], inputs: Inputs, observer: Observer, *, after: bool = False
) -> None:
    """One forward pass in which an observer is called at every site.

    Args:
        model: run without gradients. A layer that the observer changes runs with its new weights.
        sites: where it is called.
        inputs: ``[N, …]``.
        observer: see :data:`Observer`.
        after: whether behind the layers rather than in front of them.

    Raises:
        UserError: the samples take another way through the model than those that the sites were found with.
    """
    waiting: dict[str, Tensor] = {}
    takers: dict[Place, list[Callable[[Tensor], None]]] = {}
    for site in sites:
        if site.other is not None:
            takers.setdefault(site.other, []).append(partial(waiting.__setitem__, site.layer))
    taps = Taps(takers)

    def stop(site: Site, layer: nn.Module, args: Any, output: Any = None) -> None:
        if site.other is not None and site.layer not in waiting:
            raise UserError(
                f"layer '{site.layer}': what is added to its output was not met: these samples take "
                f"another way through the model than the first two; use {setting('recovery', 'bn')}"
            )
        with taps.aside():
            value = made_of(layer, args[0], output) if after else samples_first(layer, args[0])
            observer(site, layer, value, waiting.pop(site.layer, None))

    read = copied(inputs)  # which a model whose first layer works in place changes
    stops = {site.layer: partial(stop, site) for site in sites}
    with hooked(model, stops, before=not after), taps.of(model) if takers else nullcontext():
        run(model, read)


Pick = Callable[[Site, nn.Module, Tensor, "Tensor | None", Tensor], Tensor]
"""What an :data:`Observer` is given, and the places ``[N, P]`` → rows ``[N·P, …]``."""


def rows_of(
    model: nn.Module, sites: Sequence[Site], sample: Sample, pick: Pick, *, after: bool = False
) -> dict[str, Tensor]:
    """Layer → rows of all its runs, sample after sample, ``[N·R·P, …]``, of a model that is not changed.

    Args:
        model: passed a few samples at a time.
        sites: the layers.
        sample: which samples, and where to look.
        pick: what is noted of a layer.
        after: of what it puts out rather than of what it reads.
    """
    found: dict[str, list[Tensor]] = {site.layer: [] for site in sites}
    runs: dict[str, list[Tensor]] = {}
    here = slice(0, 0)

    def note(site: Site, layer: nn.Module, value: Tensor, other: Tensor | None) -> None:
        rows = pick(site, layer, value, other, sample.places[site.layer][here])
        runs.setdefault(site.layer, []).append(rows)

    for start in range(0, samples_in(sample.inputs), BATCH):
        here = slice(start, start + BATCH)
        batch = trimmed(part_of(sample.inputs, here))
        walk_layers(model, sites, batch, note, after=after)
        for name, parts in found.items():
            if name not in runs:
                raise UserError(
                    f"'{name}' runs for some inputs only, which least squares cannot recover; leave it alone "
                    f"(skip {name}), or recover with bn"
                )
            parts.append(side_by_side(runs.pop(name), samples_in(batch)))
    return {name: torch.cat(found.pop(name)) for name in list(found)}


def side_by_side(runs: list[Tensor], samples: int) -> Tensor:
    """Rows ``[N·P, …]`` of every run of a layer, sample after sample, ``[N·R·P, …]``."""
    if len(runs) == 1:
        return runs[0]
    return torch.cat([rows.view(samples, -1, rows.shape[1]) for rows in runs], 1).flatten(0, 1)


def that_fit(sites: Sequence[Site], size: Callable[[Site], int], *, memory: int) -> Iterator[list[Site]]:
    """The layers in their order, as many together as fit into memory; one always does.

    Args:
        sites: the layers.
        size: bytes of a layer.
        memory: bytes.
    """
    together: list[Site] = []
    left = memory
    for site in sites:
        needed = size(site)
        if together and left < needed:
            yield together
            together, left = [], memory
        together.append(site)
        left -= needed
    if together:
        yield together


@dataclass(frozen=True)
class Step:
    """A layer of the walk.

    Attributes:
        site: in the pruned model.
        full: in the unpruned one.
        kept: which of the latter's output channels it has, ``[K]``; None: all.
    """

    site: Site
    full: Site
    kept: Tensor | None


class Targets:
    """What the unpruned network puts out layer by layer: as many layers in one pass as fit into memory.

    Args:
        teacher: the unpruned model; not changed.
        walk: the layers, in the order in which they are solved.
        sample: which samples, and where to look.
        memory: bytes; one layer's targets are held whatever they take.
    """

    def __init__(self, teacher: nn.Module, walk: Sequence[Step], sample: Sample, *, memory: int) -> None:
        self._teacher, self._sample, self._memory = teacher, sample, memory
        self._steps = {step.site.layer: step for step in walk}
        self._held: dict[str, Tensor] = {}

    def take(self, site: Site) -> Tensor:
        """What the unpruned network puts out behind norm and sum of a site, ``[N·R·P, K]``.

        Of a layer that runs once it is forgotten, since it is needed once.
        """
        if site.layer not in self._held:
            self._held.clear()
            ahead = [step.full for step in self._steps.values()]
            names = list(self._steps)
            fitting = next(that_fit(ahead[names.index(site.layer) :], self._size, memory=self._memory))
            self._held.update(rows_of(self._teacher, fitting, self._sample, self._value, after=True))
        return self._held.pop(site.layer) if site.runs == 1 else self._held[site.layer]

    def _size(self, site: Site) -> int:
        layer, kept = filters(self._teacher.get_submodule(site.layer)), self._steps[site.layer].kept
        width = len(layer) if kept is None else len(kept)
        return self._sample.places[site.layer].numel() * site.runs * width * layer.element_size()

    def _value(
        self, site: Site, layer: nn.Module, output: Tensor, other: Tensor | None, at: Tensor
    ) -> Tensor:
        scale, shift = norm_line(self._teacher, site, layer)
        value = pick_outputs(output, at, last=is_linear(layer)) * scale + shift
        if other is not None:
            value += pick_outputs(other, at, last=is_linear(layer))
        kept = self._steps[site.layer].kept
        return value if kept is None else value[:, kept.to(value.device)]


def norm_line(model: nn.Module, site: Site, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[O]`` of the batch norm behind a layer in evaluation mode; 1 and 0 without."""
    weight = filters(layer)
    if site.norm is None:
        return weight.new_ones(len(weight)), weight.new_zeros(len(weight))
    norm = model.get_submodule(site.norm)
    variance, mean = norm.get_buffer("running_var"), norm.get_buffer("running_mean")
    scale = (variance + float(norm.eps)).rsqrt()  # type: ignore[arg-type]
    if norm.affine:
        return scale * norm.weight, norm.bias - mean * scale * norm.weight
    return scale, -mean * scale


def can_shift(site: Site, layer: nn.Module) -> bool:
    """Whether something can be added to what a layer puts out."""
    return bias_of(layer) is not None or site.norm is not None


def shift_output(model: nn.Module, site: Site, shift: Tensor) -> None:
    """Add ``[O]`` to what a layer puts out, where :func:`can_shift`: to its bias, or through the norm."""
    layer = model.get_submodule(site.layer)
    bias = bias_of(layer)
    if bias is not None:
        set_filters(layer, filters(layer), bias.double() + shift)
    elif site.norm is not None:
        # y + b in front of a norm is y with a running mean less by b.
        mean = model.get_submodule(site.norm).get_buffer("running_mean")
        mean -= shift.to(mean.dtype)
