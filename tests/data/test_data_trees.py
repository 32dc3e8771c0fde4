"""Samples of any kind in memory are what a list of them is: taken, in batches, in epochs, in parts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coprune.data import ArraySource, TextSource, TreeSource, in_memory, limited, split_source, spread
from coprune.data.from_loaders import from_loaders
from coprune.data.reads import Reads
from coprune.data.sharding import own_batches, own_steps
from coprune.data.trees import form_of
from coprune.distributed.world import Place, settle
from coprune.errors import UserError
from coprune.tracing.forward import samples_in

ANY = Reads()


def batch(kind: str, ids: list[int], size: int = 4):
    """Inputs and targets of numbered samples; the number is the value of all that they hold."""
    filled = torch.tensor(ids, dtype=torch.float32)
    x = filled.view(-1, 1, 1).expand(-1, 2, size).clone()
    if kind == "tensor":
        return x, None
    if kind == "pair":
        return (x, {"extra": x[:, 0]}), (filled, x)
    if kind == "named":
        tokens = filled.long().view(-1, 1).expand(-1, size).clone()
        return {"input_ids": tokens, "scale": x, "flag": True}, tokens
    images = [torch.full((1, 2 + i % 3, size), float(i)) for i in ids]
    return images, [{"boxes": torch.full((i % 3, 4), float(i)), "name": str(i)} for i in ids]


def ids_of(inputs) -> list[int]:
    """The numbers of the samples in a batch."""
    if isinstance(inputs, list):
        return [int(image.flatten()[0]) for image in inputs]
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    first = first["scale"] if isinstance(first, dict) else first
    return [int(v) for v in first.flatten(1)[:, 0]]


def ids_in_targets(targets) -> list[int]:
    if isinstance(targets, list):
        return [int(one["name"]) for one in targets]
    return [int(v) for v in (targets[0] if isinstance(targets, tuple) else targets[:, 0])]


KINDS = st.sampled_from(["tensor", "pair", "named", "images"])
CUTS = st.lists(st.tuples(st.integers(1, 5), st.integers(2, 4)), min_size=1, max_size=6)


def source_of(kind, cuts):
    """A source of numbered samples in batches of such lengths and sizes, and its samples in order."""
    start, batches, chunks = 0, [], {}
    for length, size in cuts:
        ids = list(range(start, start + length))
        batches.append(batch(kind, ids, size))
        chunks.setdefault(size if kind != "images" else 0, []).extend(ids)
        start += length
    return TreeSource.of(batches), list(chunks.values())


@given(kind=KINDS, cuts=CUTS, size=st.integers(1, 7), data=st.data())
def test_batches_and_parts_are_those_of_a_list(kind, cuts, size, data):
    source, chunks = source_of(kind, cuts)
    wanted = [c[at : at + size] for c in chunks for at in range(0, len(c), size)]
    found = list(source.batches(size))
    assert [ids_of(x) for x, _ in found] == wanted
    assert len(source) == sum(map(len, chunks))
    assert source.steps(size) == len(wanted)
    for x, y in found:
        assert kind == "tensor" or ids_in_targets(y) == ids_of(x)
    every = [i for chunk in chunks for i in chunk]
    places = data.draw(st.lists(st.integers(0, len(every) - 1), unique=True, min_size=1))
    part = source.take(torch.tensor(places))
    inside = [[i for p in places for i in [every[p]] if i in chunk] for chunk in chunks]
    flat = [i for chunk in inside for i in chunk]
    assert [i for x, _ in part.batches(size) for i in ids_of(x)] == flat
    assert (part.fingerprint() == source.fingerprint()) == (flat == every)


@given(kind=KINDS, cuts=CUTS, size=st.integers(1, 7), fraction=st.floats(0.01, 1), seed=st.integers(0, 9))
def test_an_epoch_draws_every_sample_once_and_mixes_no_sizes(kind, cuts, size, fraction, seed):
    source, chunks = source_of(kind, cuts)
    found = [ids_of(x) for x, _ in source.epoch(size, seed=seed, epoch=1, fraction=fraction)]
    flat = [i for part in found for i in part]
    assert len(flat) == len(set(flat)) == max(1, round(fraction * len(source)))
    assert len(found) == source.steps(size, fraction)
    assert all(any(set(part) <= set(chunk) for chunk in chunks) for part in found)
    again = [ids_of(x) for x, _ in source.epoch(size, seed=seed, epoch=1, fraction=fraction, skip=1)]
    assert again == found[1:]


def test_one_shape_with_classes_is_what_images_are():
    images, labels = torch.rand(31, 1, 4, 4), torch.arange(31) % 3
    tree, array = TreeSource.of([(images, labels)], labelled=True), ArraySource(images, labels)
    for one, two in (
        (tree, array),
        *zip(*(split_source(s, (0.5, 0.3), seed=1) for s in (tree, array)), strict=True),
    ):
        assert one.labels.tolist() == two.labels.tolist()
        for (x, y), (u, v) in zip(one.epoch(7, seed=2, epoch=3), two.epoch(7, seed=2, epoch=3), strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    assert torch.equal(spread(tree, 9), spread(array, 9))
    assert torch.equal(limited(tree, 9, seed=0).labels, limited(array, 9, seed=0).labels)


def test_a_batch_is_no_view_of_what_is_held():
    for kind in ("tensor", "images"):
        source, _ = source_of(kind, [(4, 3)])
        for x, _ in source.batches(2):
            (x[0] if kind == "images" else x).fill_(-1)
        assert [i for x, _ in source.batches(4) for i in ids_of(x)] == [0, 1, 2, 3]


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("kind", ["named", "images"])
def test_processes_share_out_whole_batches(kind, world):
    source, _ = source_of(kind, [(5, 3), (4, 2), (3, 3), (1, 4)])
    alone = [(b.number, b.start, ids_of(b.inputs)) for b in own_batches(source, 3)]
    shares = []
    try:
        for rank in range(world):
            settle(Place(rank, world))
            shares += [(b.number, b.start, ids_of(b.inputs)) for b in own_batches(source, 3)]
            assert own_steps(source, 3) == len([n for n, _, _ in shares if n % world == rank])
    finally:
        settle(Place())
    assert sorted(shares) == alone


def test_numbered_samples_carry_their_numbers():
    source, _ = source_of("named", [(3, 2), (2, 3), (2, 2)])
    assert [y.tolist() for _, y in source.numbered().batches(4)] == [[0, 1, 2, 3], [4], [5, 6]]


def test_spread_takes_the_commonest_shape():
    source, _ = source_of("tensor", [(3, 2), (9, 3)])
    assert spread(source, 12).shape == (9, 2, 3)


def test_what_can_be_one():
    a, b = torch.rand(2, 3), torch.rand(4, 3)
    assert form_of(a) == form_of(b)
    assert form_of({"x": a, "on": True}) == form_of({"x": b, "on": True}) != form_of({"x": b, "on": False})
    assert len({form_of(x) for x in (a, a.double(), a[:, :2], (a,), (a, a), {"x": a}, [a], None)}) == 8


def test_nan_is_counted_by_sample():
    x = torch.rand(4, 2)
    x[1, 0] = x[2, 1] = float("nan")
    images = [torch.rand(3, 2, 2), torch.full((3, 1, 1), float("inf"))]
    assert TreeSource.of([((torch.rand(4), x), None)]).validation_error().startswith("NaN or Inf in 2 of 4 ")
    assert TreeSource.of([(images, None)]).validation_error().startswith("NaN or Inf in 1 of 2 ")
    assert TreeSource.of([({"x": torch.arange(3)}, None)]).validation_error() is None


def test_texts_stay_texts_where_they_are_padded_on_the_right():
    ids, mask = torch.arange(1, 9).view(2, 4), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    right, left = ({"input_ids": ids, "attention_mask": m} for m in (mask, mask.flip(1)))
    assert isinstance(in_memory([(right, None)], labelled=False), TextSource)
    given = in_memory([(left, None)], labelled=False)
    assert isinstance(given, TreeSource)
    assert torch.equal(next(given.batches(2))[0]["attention_mask"], mask.flip(1))
    with pytest.raises(UserError, match="must pad on the right"):
        in_memory([(left, torch.arange(2))])


def loaders(n=20, *, targets=True):
    x = torch.arange(n, dtype=torch.float32).view(-1, 1, 1).expand(-1, 2, 3).clone()
    return [(part, part[:, 0] if targets else None) for part in x.split(6)]


def ids(source):
    return {i for x, _ in source.batches(100) for i in ids_of(x)}


def test_without_held_out_samples_a_fifth_is_set_aside_and_said():
    data = from_loaders(calibration=loaders(), reads=ANY)
    assert (data.classes, data.input_shape) == (None, (2, 3))
    assert (len(data.calibration), len(data.heldout)) == (16, 4)
    assert ids(data.calibration) | ids(data.heldout) == set(range(20))
    assert data.train is None
    with pytest.raises(UserError, match="training needs training samples; give train"):
        data.training  # noqa: B018
    assert data.notes == ("no eval=: figures are of 4 of the calibration samples, set aside for that",)
    assert ids(from_loaders(calibration=loaders(), reads=ANY).heldout) == ids(data.heldout)
    of_classes = from_loaders(train=[(x, torch.arange(len(x)) % 2) for x, _ in loaders()])
    assert (of_classes.classes, len(of_classes.heldout)) == (2, 4)
    with pytest.raises(UserError, match="calibration=: a single sample; give more"):
        from_loaders(calibration=loaders(1), reads=ANY)
    with pytest.raises(UserError, match="train= is None"):
        from_loaders(heldout=loaders(), reads=ANY)


def test_two_batches_are_no_pair():
    data = from_loaders(calibration=[x for x, _ in loaders(12)], reads=ANY)
    assert (len(data.calibration), len(data.heldout)) == (10, 2)
    with pytest.raises(UserError, match="if that is one batch"):
        from_loaders(calibration=[torch.rand(4, 3), torch.rand(4)], reads=ANY)


def test_streams_are_read_as_far_as_asked():
    def forever():
        while True:
            yield from loaders(targets=False)

    data = from_loaders(calibration=forever(), heldout=forever(), calibration_samples=9, reads=ANY)
    assert (len(data.calibration), len(data.heldout)) == (9, 9)
    assert data.notes == tuple(
        f"{name} has no length; its first 9 samples were taken (calibration_samples=)"
        for name in ("eval=", "calibration=")
    )
    assert next(data.heldout.batches(9))[1] is None


def test_a_loader_of_other_sizes_is_held_as_it_is():
    parts = [batch("images", [0, 1, 2]), batch("images", [3, 4])]
    data = from_loaders(train=parts, heldout=parts, calibration_samples=4, reads=ANY)
    assert len(data.calibration) == 4
    assert data.calibration.input_shape == (1, 2, 4)
    assert sum(samples_in(x) for x, _ in data.train.epoch(2, seed=0, epoch=0)) == 5
    assert data.train.steps(0) == 2
