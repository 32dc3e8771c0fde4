"""Random draws that depend on names, not on the order in which they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: object, *names: object) -> int:
    """64 bits that depend on a seed and on what is drawn, e.g. a layer's name or an epoch's number."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(seed: object, *names: object) -> torch.Generator:
    """A generator of its own for whatever the names say, independent of all other draws."""
    return torch.Generator().manual_seed(derived_seed(seed, *names) >> 1)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Within the context what is drawn follows from the seed, also by a loader that shuffles.

    The caller's generator is afterwards where it was. Without a seed it is drawn from as it stands.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield
