"""What the unpruned network says at every layer of the walk: the targets of its regressions.

Shapes: ``N`` samples, ``P`` places a sample, ``R`` runs of a layer, ``K`` kept output channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from coprune.errors import UserError
from coprune.layers import filters, is_linear
from coprune.recovery.layer_walk import visit_sites
from coprune.recovery.sampling import BATCH
from coprune.tracing.forward import Inputs, part_of, samples_in, trimmed
from coprune.tracing.layer_graph import Site
from coprune.tracing.patches import pick_outputs

Step = tuple[Site, Site, Tensor | None]
"""A layer's site in the pruned and in the unpruned model, and which of the latter's channels it has."""


class Targets:
    """Targets layer by layer: as many layers ahead as fit into memory are asked about in one pass.

    Args:
        teacher: the unpruned model; not changed.
        walk: the layers, in the order in which they will be asked for.
        inputs: samples ``[N, …]``.
        places: layer → where to look, ``[N, P]``.
        memory: bytes; one layer's targets are held whatever they take.
    """

    def __init__(
        self,
        teacher: nn.Module,
        walk: Sequence[Step],
        inputs: Inputs,
        places: Mapping[str, Tensor],
        *,
        memory: int,
    ) -> None:
        self._teacher, self._walk, self._inputs, self._places = teacher, walk, inputs, places
        self._memory = memory
        self._held: dict[str, Tensor] = {}

    def take(self, site: Site) -> Tensor:
        """What the unpruned network says behind norm and sum of a site, ``[N·R·P, K]``.

        Of a layer that runs once it is forgotten, since it is asked for once.
        """
        if site.layer not in self._held:
            self._held.clear()
            self._held.update(_values(self._teacher, self._ahead(site), self._inputs, self._places))
        return self._held.pop(site.layer) if site.runs == 1 else self._held[site.layer]

    def _ahead(self, site: Site) -> list[Step]:
        """The walk from a site on, as far as its targets fit."""
        first = next(i for i, (here, _, _) in enumerate(self._walk) if here.layer == site.layer)
        taken: list[Step] = []
        left = self._memory
        for step in self._walk[first:]:
            here, _, index = step
            layer = filters(self._teacher.get_submodule(here.layer))
            rows = self._places[here.layer].numel() * here.runs
            left -= rows * (len(layer) if index is None else len(index)) * layer.element_size()
            if taken and left < 0:
                break
            taken.append(step)
        return taken


@torch.no_grad()
def _values(
    teacher: nn.Module, walk: Sequence[Step], inputs: Inputs, places: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Layer → targets. Nothing is changed on the way, so the samples can pass a few at a time."""
    kept = {site.layer: index for site, _, index in walk}
    # Whether a sum can be made up for is the pruned model's matter; both run in the same order.
    found: dict[str, list[Tensor]] = {site.layer: [] for site, _, _ in walk}
    here, runs = slice(0, 0), dict[str, list[Tensor]]()

    def note(site: Site, layer: nn.Module, output: Tensor, other: Tensor | None, _: int) -> None:
        at, last = places[site.layer][here], is_linear(layer)
        scale, shift = norm_line(teacher, site, layer)
        value = pick_outputs(output, at, last=last) * scale + shift
        if other is not None:
            value += pick_outputs(other, at, last=last)
        channels = kept[site.layer]
        value = value if channels is None else value[:, channels.to(value.device)]
        runs.setdefault(site.layer, []).append(value)

    for start in range(0, samples_in(inputs), BATCH):
        here = slice(start, start + BATCH)
        batch = trimmed(part_of(inputs, here))
        visit_sites(teacher, [full for _, full, _ in walk], [batch], note, after=True)
        for name in found:
            if name not in runs:
                raise UserError(
                    f"'{name}' runs for some inputs only, which least squares cannot recover; leave it alone "
                    f"(skip {name}), or recover with bn"
                )
            found[name].append(side_by_side(runs.pop(name), samples_in(batch)))
    return {name: torch.cat(found.pop(name)) for name in list(found)}


def side_by_side(runs: list[Tensor], samples: int) -> Tensor:
    """Rows ``[N·P, …]`` of every run of a layer, sample after sample, ``[N·R·P, …]``."""
    if len(runs) == 1:
        return runs[0]
    return torch.cat([rows.view(samples, -1, rows.shape[1]) for rows in runs], 1).flatten(0, 1)


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
