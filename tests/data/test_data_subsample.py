"""A few samples of a source, evenly spread."""

from __future__ import annotations

import torch

import tiny
from coprune.data import LoaderSource, TextSource
from coprune.data.subsample import spread, spread_batches


def test_images_are_every_third_in_their_order():
    source = tiny.source(30)
    assert torch.equal(spread(source, 10), next(source.batches(30))[0][::3])
    assert torch.equal(spread(source, 100), next(source.batches(30))[0])


def test_a_loader_gives_the_same():
    source = tiny.source(30)
    loader = LoaderSource(list(source.batches(7)), 30)
    assert torch.equal(spread(loader, 10), spread(source, 10))


def lines(n=12):
    lengths = [2 + i % 5 for i in range(n)]
    batches = [
        {"input_ids": torch.full((1, k), i + 1), "attention_mask": torch.ones(1, k, dtype=torch.int64)}
        for i, k in enumerate(lengths)
    ]
    return TextSource.from_batches(batches, torch.arange(n) % 2)


def test_texts_are_shuffled_since_they_are_stored_by_length():
    source = lines()
    whole = spread(source, 12)
    lengths = whole["attention_mask"].sum(1).tolist()
    assert sorted(lengths) == sorted(source.lengths.tolist())
    assert lengths != sorted(lengths, reverse=True)
    assert torch.equal(whole["input_ids"], spread(source, 12)["input_ids"])


def test_batches_of_texts_are_as_wide_as_their_longest():
    batches = spread_batches(lines(), 12, batch_size=4)
    assert [b["input_ids"].shape[1] for b in batches] == [
        int(b["attention_mask"].sum(1).max()) for b in batches
    ]
    assert len({b["input_ids"].shape[1] for b in batches}) > 1
