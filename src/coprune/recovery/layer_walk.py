"""Walks through a network, layer by layer, and what the unpruned one puts out there.

Shapes: ``N`` samples, ``P`` places a sample, ``R`` runs of a layer, ``O`` its outputs, ``K`` those kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from itertools import dropwhile
from typing import Any

import greenlet
import torch
from torch import Tensor, nn

from coprune.errors import UserError, setting
from coprune.layers import bias_of, filters, is_linear, made_of, samples_first, set_filters
from coprune.recovery.base import Pair
from coprune.recovery.sampling import BATCH, Sample
from coprune.tracing.call_trace import Place, Taps
from coprune.tracing.forward import Inputs, copied, run, samples_in
from coprune.tracing.hooks import hooked
from coprune.tracing.layer_graph import Site
from coprune.tracing.patches import pick_outputs

Observer = Callable[[Site, nn.Module, Tensor, "Tensor | None", int], None]
"""Given site, layer, what the layer reads (or puts out), the other operand of the sum behind it, and which
part of the samples, by number, that is of."""

Met = Callable[[Site], None]
"""Called when all parts stand at a site."""


@torch.no_grad()
def walk_layers(
    model: nn.Module,
    sites: Sequence[Site],
    parts: Sequence[Inputs],
    observer: Observer,
    *,
    after: bool = False,
    met: Met | None = None,
) -> None:
    """One forward pass in which an observer is called at every site.

    Args:
        model: run without gradients.
        sites: where it is called.
        parts: of the samples, ``[n, …]`` each.
        observer: see :data:`Observer`.
        after: whether behind the layers rather than in front of them.
        met: called when all parts stand at a site. A layer that is changed there runs with its new weights in
            all of them. Without it they pass one after the other.

    Raises:
        UserError: the samples take another way through the model than those that the sites were found with.
    """
    walk = _Passes(model, sites, observer, met, [samples_in(part) for part in parts])
    stops = {site.layer: partial(walk.stop, site, after=after) for site in sites}
    with hooked(model, stops, before=not after), walk.tapped():
        if met is None or len(parts) == 1:
            for number, part in enumerate(parts):
                walk.begin(number, part)
        else:
            walk.side_by_side(parts, met)


def _added_to(layer: nn.Module, value: Tensor, other: Tensor) -> bool:
    """Whether a sum's other operand can be that of a layer with this input or output ``[N, …]``."""
    axis = -1 if is_linear(layer) else 1
    return other.ndim > 1 and len(other) == len(value) and other.shape[axis] == len(filters(layer))


class _Passes:
    """Forward passes of several parts of the samples, of which one runs at a time.

    Args:
        model, sites, observer, met: see :func:`walk_layers`.
        sizes: samples of each part.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        observer: Observer,
        met: Met | None,
        sizes: Sequence[int],
    ) -> None:
        self._model, self._observer, self._met = model, observer, met
        self._others: list[dict[str, Tensor]] = [{} for _ in sizes]
        self._running, self._sizes = 0, sizes
        self._pause: Met | None = None
        takers: dict[Place, list[Callable[[Tensor], None]]] = {}
        for site in sites:
            if site.other is not None:
                takers.setdefault(site.other, []).append(partial(self._take, site.layer))
        self._taps = Taps(takers)
        self._numbers = [self._taps.number] * len(sizes)

    def tapped(self) -> AbstractContextManager[None]:
        """Within the context the sums' other operands are met."""
        return self._taps.of(self._model) if self._taps.wanted else nullcontext()

    def _take(self, layer: str, other: Tensor) -> None:
        self._others[self._running][layer] = other

    def begin(self, number: int, inputs: Inputs) -> None:
        """The pass of a part."""
        read = copied(inputs)  # which a model whose first layer works in place changes
        self._running, self._taps.number = number, self._numbers[number]
        run(self._model, read)

    def stop(self, site: Site, layer: nn.Module, args: Any, output: Any = None, *, after: bool) -> None:
        """What happens at a site."""
        other = self._others[self._running].pop(site.layer, None)
        with self._taps.aside():
            value = made_of(layer, args[0], output) if after else samples_first(layer, args[0])
            if len(value) % self._sizes[self._running]:
                raise UserError(
                    f"layer '{site.layer}' reads some of the samples only, which least squares cannot "
                    f"recover; use {setting('recovery', 'bn')}"
                )
            # In a network that loops over the samples another call has the number of that which made it.
            if site.other is not None and (other is None or not _added_to(layer, value, other)):
                raise UserError(
                    f"layer '{site.layer}': what is added to its output was not met: these samples take "
                    f"another way through the model than the first two; use {setting('recovery', 'bn')}"
                )
            self._observer(site, layer, value, other, self._running)
            if self._met is not None and self._pause is None:
                self._met(site)
        if self._pause is not None:
            self._pause(site)

    def side_by_side(self, parts: Sequence[Inputs], met: Met) -> None:
        """Passes that wait for one another at every site: what a part holds there is little.

        Each is a greenlet, which stops inside of the model's code and goes on there later. One thread runs
        all of them, one at a time.
        """
        here = greenlet.getcurrent()
        self._pause = here.switch
        passes = [greenlet.greenlet(self.begin) for _ in parts]
        for passing in passes:
            passing.gr_context = copy_context()
        given: Sequence[tuple[Any, ...]] = list(enumerate(parts))
        while True:
            stopped = [self._go_on(number, passes[number], *args) for number, args in enumerate(given)]
            site = stopped[0]
            if any(other is not site for other in stopped):
                raise UserError(
                    "some samples take another way through the model than others, which least squares cannot "
                    f"recover; use {setting('recovery', 'bn')}"
                )
            if site is None:
                return
            with self._taps.aside():
                met(site)
            given = [()] * len(parts)

    def _go_on(self, number: int, passing: greenlet.greenlet, *args: Any) -> Site | None:
        """Run a part's pass up to its next site, which is handed back; None at its end."""
        self._running, self._taps.number = number, self._numbers[number]
        site: Site | None = passing.switch(*args)
        self._numbers[number] = self._taps.number
        return site


Pick = Callable[[Site, nn.Module, Tensor, "Tensor | None", Tensor], Tensor]
"""What an :data:`Observer` is given, with the places ``[n, P]`` for the number → rows ``[n·P, …]``."""


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
    parts = sample.parts(BATCH)
    runs: list[dict[str, list[Tensor]]] = [{} for _ in parts]

    def note(site: Site, layer: nn.Module, value: Tensor, other: Tensor | None, part: int) -> None:
        rows = pick(site, layer, value, other, sample.places[site.layer][parts[part][0]])
        runs[part].setdefault(site.layer, []).append(rows)

    walk_layers(model, sites, [inputs for _, inputs in parts], note, after=after)
    found = {}
    for name in (site.layer for site in sites):
        if any(name not in of_part for of_part in runs):
            raise UserError(
                f"'{name}' runs for some inputs only, which least squares cannot recover; leave it alone "
                f"(skip {name}), or recover with bn"
            )
        each = zip(runs, parts, strict=True)
        found[name] = torch.cat([side_by_side(of_part.pop(name), samples_in(i)) for of_part, (_, i) in each])
    return found


def side_by_side(runs: list[Tensor], samples: int) -> Tensor:
    """Rows ``[N·P, …]`` of every run of a layer, sample after sample, ``[N·R·P, …]``."""
    if len(runs) == 1:
        return runs[0]
    return torch.cat([rows.view(samples, -1, rows.shape[1]) for rows in runs], 1).flatten(0, 1)


def that_fit(sites: Iterable[Site], size: Callable[[Site], int], *, memory: int) -> Iterator[list[Site]]:
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


class Targets:
    """What the unpruned network puts out layer by layer: as many layers in one pass as fit into memory.

    Args:
        pair: whose unpruned model is asked, for the channels that the pruned one has.
        sites: of its layers, in the order in which they are solved.
        sample: which samples, and where to look.
        memory: bytes; one layer's targets are held whatever they take.
    """

    def __init__(self, pair: Pair, sites: Sequence[Site], sample: Sample, *, memory: int) -> None:
        self._pair, self._sites, self._sample, self._memory = pair, sites, sample, memory
        self._held: dict[str, Tensor] = {}

    def take(self, site: Site) -> Tensor:
        """What the unpruned network puts out behind norm and sum of a site, ``[N·R·P, K]``.

        Of a layer that runs once it is forgotten, since it is needed once.
        """
        if site.layer not in self._held:
            self._held.clear()
            ahead = dropwhile(lambda full: full.layer != site.layer, self._sites)
            fitting = next(that_fit(ahead, self._size, memory=self._memory))
            self._held.update(rows_of(self._pair.teacher, fitting, self._sample, self._value, after=True))
        return self._held.pop(site.layer) if site.runs == 1 else self._held[site.layer]

    def _size(self, site: Site) -> int:
        layer = filters(self._pair.teacher.get_submodule(site.layer))
        width = len(self._pair.kept.get(site.layer, layer))
        return self._sample.places[site.layer].numel() * site.runs * width * layer.element_size()

    def _value(
        self, site: Site, layer: nn.Module, output: Tensor, other: Tensor | None, at: Tensor
    ) -> Tensor:
        scale, shift = norm_line(self._pair.teacher, site, layer)
        value = pick_outputs(output, at, last=is_linear(layer)) * scale + shift
        if other is not None:
            value += pick_outputs(other, at, last=is_linear(layer))
        kept = self._pair.kept.get(site.layer)
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
