"""A few samples of a source as one batch."""

from __future__ import annotations

import torch

from coprune.data.source import Source
from coprune.forward import Inputs, joined, part_of

_BATCH = 125


def spread(source: Source, count: int, *, seed: int = 0) -> Inputs:
    """Evenly spread samples of a source, all in one batch.

    Args:
        source: in the order in which it is stored.
        count: how many, at most; fewer when the source has fewer.
        seed: named inputs are shuffled by it: texts are stored by length, and whoever sets the last
            samples aside must not set the long ones aside.

    Returns:
        Inputs of ``min(count, len(source))`` samples.
    """
    count = min(count, len(source))
    index = torch.tensor([i * len(source) // count for i in range(count)])
    take = getattr(source, "take", None)
    if take is not None:
        inputs, _ = next(iter(take(index).batches(count)))
    else:
        wanted, parts, seen = set(index.tolist()), [], 0
        for batch, labels in source.batches(_BATCH):
            here = [i for i in range(len(labels)) if seen + i in wanted]
            parts.append(part_of(batch, here))
            seen += len(labels)
        inputs = joined(parts)
    if isinstance(inputs, dict):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        inputs = part_of(inputs, order)
    return inputs
