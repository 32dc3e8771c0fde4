"""One draw from names: the numbers that earlier versions drew."""

from __future__ import annotations

import hashlib

import torch

from coprune.seeding import derived_seed, generator


def test_draws_are_those_of_the_hash_of_all_names() -> None:
    digest = hashlib.blake2b(b"3/layer.1", digest_size=8).digest()
    expected = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    found = torch.rand(5, generator=generator(3, "layer.1"))
    assert torch.equal(found, torch.rand(5, generator=expected))
    assert derived_seed(3, "layer.1") == int.from_bytes(digest, "little")


def test_every_name_matters() -> None:
    seeds = {derived_seed(*names) for names in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 2))}
    assert len(seeds) == 5
