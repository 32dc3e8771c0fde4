"""A few samples of a source."""

from __future__ import annotations

import torch

from coprune.data.source import Source
from coprune.tracing.forward import Inputs, joined, part_of, samples_in


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
    inputs = joined(spread_batches(source, count, batch_size=max(1, count)))
    if isinstance(inputs, dict):
        order = torch.randperm(samples_in(inputs), generator=torch.Generator().manual_seed(seed))
        inputs = part_of(inputs, order)
    return inputs


def spread_batches(source: Source, count: int, *, batch_size: int) -> list[Inputs]:
    """Evenly spread samples in batches as the source makes them: of texts, each as wide as its longest.

    Args:
        source, count: as for :func:`spread`.
        batch_size: at most; a user's own loader has its own.
    """
    count = min(count, len(source))
    index = torch.tensor([i * len(source) // count for i in range(count)])
    take = getattr(source, "take", None)
    if take is not None:
        return [inputs for inputs, _ in take(index).batches(batch_size)]
    wanted, parts, seen = set(index.tolist()), [], 0
    for batch, labels in source.batches(batch_size):
        here = [i for i in range(len(labels)) if seen + i in wanted]
        if here:
            parts.append(part_of(batch, here))
        seen += len(labels)
    return parts
