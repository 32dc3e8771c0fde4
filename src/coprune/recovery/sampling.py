"""What the walk looks at: which samples, shared out among the processes, and which places of them.

Shapes: ``N`` samples, ``P`` places a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from coprune.data import Source
from coprune.data.subsample import spread
from coprune.distributed.world import own_range, world
from coprune.layers import is_convolution
from coprune.measure.memory import peak_memory
from coprune.tracing.active_positions import learn_reach
from coprune.tracing.forward import Inputs, copied, lengths_of, moved, part_of, samples_in, split
from coprune.tracing.layer_graph import Site
from coprune.tracing.patches import draw_positions, draw_valid

BATCH = 125
"""Samples of a pass where nothing asks for all of them at once."""

_PARTS = 4
"""Of the texts that are solved on. Their activations are held side by side, so more save little."""

_HELD_BACK = 8
_PROBES = 16


def samples_that_fit(source: Source, teacher: nn.Module, *, memory: int) -> Inputs:
    """As many samples as fit into memory, evenly spread.

    Args:
        source: calibration samples.
        teacher: the unpruned model.
        memory: bytes at the worst moment of a pass of all of them.

    Returns:
        ``[N, …]`` on the model's device.
    """
    device = next(teacher.parameters()).device
    # Texts are stored by length, the longest first: no sample takes more.
    longest, _ = next(iter(source.batches(1)))
    first = copied(moved(part_of(longest, [0]), device))
    weights = sum(t.untyped_storage().nbytes() for t in [*teacher.parameters(), *teacher.buffers()])
    each = max(1, peak_memory(teacher, first) - weights)
    return spread(source, max(16, memory // each))


def own_samples(samples: int) -> tuple[Tensor, int, bool]:
    """This process's share of ``N`` samples.

    Args:
        samples: ``N``; the last eighth judges and is not solved on.

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


def parts_of(inputs: Inputs, *, judging: int) -> tuple[Tensor, list[slice]]:
    """Texts by length, so that a part of them has little padding.

    Args:
        inputs: ``[N, …]``.
        judging: how many of the last samples judge; they stay the last.

    Returns:
        The new order ``[N]`` int64 and its parts; one part in the old order where there are no lengths.
    """
    samples, lengths = samples_in(inputs), lengths_of(inputs)
    if lengths is None:
        return torch.arange(samples), [slice(0, samples)]
    solving = samples - judging
    order = torch.cat(
        [lengths[:solving].argsort(stable=True), solving + lengths[solving:].argsort(stable=True)]
    ).cpu()
    size = max(1, -(-solving // _PARTS))
    starts = [*range(0, solving, size), solving]
    return order, [slice(a, b) for a, b in pairwise([*starts, samples]) if a < b]


def looked_at(
    teacher: nn.Module, sites: Sequence[Site], inputs: Inputs, *, rows: int, seed: int, device: str
) -> dict[str, Tensor]:
    """Where to look at every layer; of tokens, only at those that can reach the logits.

    Args:
        teacher: the unpruned model.
        sites: the layers.
        inputs: ``[N, …]``.
        rows: of a regression, about.
        seed: of the draw.
        device: of the result.

    Returns:
        Layer → ``[N, P]`` int64.
    """
    samples = samples_in(inputs)
    wanted = {site.layer: -(-rows // (samples * site.runs)) for site in sites}
    dense = {site.layer: teacher.get_submodule(site.layer) for site in sites if site.places > 1}
    names = [name for name, layer in dense.items() if not is_convolution(layer)]
    valid: dict[str, Tensor] = {}
    if names:
        rule = learn_reach(teacher, part_of(inputs, slice(_PROBES)), names)
        parts = [rule.of(part) for part in split(inputs, BATCH)]
        valid = {name: torch.cat([part[name] for part in parts]) for name in names}
    return {
        site.layer: (
            draw_valid(name, valid[name], wanted=wanted[name], seed=seed)
            if name in valid
            else draw_positions(name, samples=samples, places=site.places, wanted=wanted[name], seed=seed)
        ).to(device)
        for site in sites
        for name in (site.layer,)
    }
