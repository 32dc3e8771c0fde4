"""What a layer's regression is solved on: which samples, shared out among the processes, and which places.

Shapes: ``N`` samples, ``P`` places a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.subsample import spread
from coprune.distributed.world import own_range, world
from coprune.layers import is_convolution, is_dense, is_recurrent
from coprune.measure.memory import waiting_memory
from coprune.recovery.base import Pair
from coprune.tracing.active_positions import learn_active_positions
from coprune.tracing.forward import Inputs, copied, lengths_of, moved, part_of, samples_in, split, trimmed
from coprune.tracing.layer_graph import Site
from coprune.tracing.patches import draw_positions, draw_valid

BATCH = 125
"""Samples of a pass where nothing asks for all of them at once."""

_HELD_BACK = 8
_PROBES = 16


@dataclass(frozen=True)
class Sample:
    """This process's samples, and places of them.

    Attributes:
        inputs: ``[N, …]``.
        places: layer → drawn places, ``[N, P]`` int64.
        judging: how many of the last samples judge, and are solved on only once λ is chosen.
        shared: whether other processes have other samples.
        at_once: how many pass a model at a time.
    """

    inputs: Inputs
    places: Mapping[str, Tensor]
    judging: int
    shared: bool
    at_once: int = BATCH

    def parts(self, most: int | None = None) -> list[tuple[slice, Inputs]]:
        """The samples that pass at a time, at most so many, and their inputs; texts as wide as they need."""
        size = self.at_once if most is None else min(self.at_once, most)
        slices = [slice(at, at + size) for at in range(0, samples_in(self.inputs), size)]
        return [(part, trimmed(part_of(self.inputs, part))) for part in slices]

    def held_back(self, rows: Tensor) -> int:
        """How many of a layer's rows, which follow one another by sample, judge."""
        return len(rows) // samples_in(self.inputs) * self.judging


def samples_that_fit(source: Source, teacher: nn.Module, *, memory: int) -> tuple[Inputs, int]:
    """As many samples as fit into memory, evenly spread, and how many of them pass at a time.

    Args:
        source: calibration samples.
        teacher: the unpruned model.
        memory: bytes at the worst moment of a pass in which all samples wait for one another in front of
            every dense layer. Where they do not fit into it at once, a quarter is for those that pass, and
            the rest for those that wait.

    Returns:
        ``[N, …]`` on the model's device, and the size of a part.
    """
    device = next(teacher.parameters()).device
    # Texts are stored by length, the longest first: no sample takes more.
    longest, _ = next(iter(source.batches(1)))
    first = copied(moved(part_of(longest, [0]), device))
    layers = [name for name, module in teacher.named_modules() if is_dense(module)]
    waiting, each = (max(1, size) for size in waiting_memory(teacher, first, layers))
    if memory // each >= len(source):
        return moved(spread(source, len(source)), device), len(source)
    at_once = max(1, memory // 4 // each)
    return moved(spread(source, max(16, (memory - at_once * each) // waiting)), device), at_once


def own_samples(samples: int) -> tuple[Tensor, int, bool]:
    """This process's share of ``N`` samples.

    Args:
        samples: ``N``; the last eighth judges, and is solved on only once λ is chosen.

    Returns:
        Their numbers; how many of the last ones judge; and whether the others are other processes', or
        all are everybody's, because some would have none.
    """
    judging = max(1, samples // _HELD_BACK)
    solving = samples - judging
    if world() == 1 or min(judging, solving) < world():
        return torch.arange(samples), judging, False
    judges = [solving + i for i in own_range(judging)]
    return torch.tensor([*own_range(solving), *judges]), len(judges), True


def drawn(pair: Pair, sites: Sequence[Site], inputs: Inputs, *, rows: Mapping[str, int], seed: int) -> Sample:
    """This process's share of the samples, and the drawn places of every layer.

    Of tokens, only at those that can reach the logits.

    Args:
        pair: of whose unpruned model the places are drawn.
        sites: the layers.
        inputs: of all processes, ``[N, …]``.
        rows: layer → rows of its regression, about.
        seed: of the draw.
    """
    teacher, samples = pair.teacher, samples_in(inputs)
    dense = {s.layer: teacher.get_submodule(s.layer) for s in sites if s.places > 1}
    names = [n for n, layer in dense.items() if not (is_convolution(layer) or is_recurrent(layer))]
    valid: dict[str, Tensor] = {}
    if names:
        probes = part_of(inputs, slice(_PROBES))
        rule = learn_active_positions(teacher, probes, names, signal=pair.task.signal)
        parts = [rule.of(part) for part in split(inputs, BATCH)]
        valid = {name: torch.cat([part[name] for part in parts]) for name in names}
    index, judging, shared = own_samples(samples)
    index = _by_length(inputs, index, judging=judging)
    device = next(teacher.parameters()).device
    places = {}
    for site in sites:
        name, wanted = site.layer, -(-rows[site.layer] // (samples * site.runs))
        at = (
            draw_valid(name, valid[name], wanted=wanted, seed=seed)
            if name in valid
            else draw_positions(name, samples=samples, places=site.places, wanted=wanted, seed=seed)
        )
        places[name] = at[index].to(device)
    if not torch.equal(index, torch.arange(samples)):
        inputs = part_of(inputs, index)
    return Sample(inputs, places, judging, shared)


def _by_length(inputs: Inputs, index: Tensor, *, judging: int) -> Tensor:
    """Some samples in the order of their lengths, so that batches have little padding; judges stay last."""
    lengths = lengths_of(inputs)
    if lengths is None:
        return index
    solving, judges = index[: len(index) - judging], index[len(index) - judging :]
    return torch.cat([part[lengths.cpu()[part].argsort(stable=True)] for part in (solving, judges)])
