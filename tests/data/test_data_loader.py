"""A user's own loader: looked at once, checked by batch, counted by pass; what was not used is said."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from coprune.data.from_loaders import from_loaders, take
from coprune.data.loader import LoaderSource, opened
from coprune.data.reads import Reads
from coprune.errors import UserError
from coprune.user_code import raised

X, Y = torch.rand(60, 1, 4, 4), torch.arange(60) % 3
BATCHES = list(zip(X.split(10), Y.split(10), strict=True))


class Counting:
    """Batches, and how often they were asked for."""

    def __init__(self, batches=BATCHES, length: int | None = None) -> None:
        self.batches, self.length, self.handed = batches, length, 0

    def __len__(self) -> int:
        return len(self.batches) if self.length is None else self.length

    def __iter__(self):
        for batch in self.batches:
            self.handed += 1
            yield batch


def data(**given):
    return from_loaders(
        **{"train": BATCHES, "heldout": BATCHES, "calibration": None, "calibration_samples": 30} | given
    )


def test_a_look_takes_a_batch_and_draws_nothing():
    loader = DataLoader(TensorDataset(X, Y), batch_size=10, shuffle=True)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    source = opened(loader, "eval=")
    assert torch.equal(torch.get_rng_state(), before)
    assert (len(source), source.steps(1)) == (60, 6)
    counting = Counting()
    opened(counting, "eval=")
    assert counting.handed == 2  # the second shows that there is a second pass


def test_every_shape_of_a_list_is_seen_and_its_highest_label():
    small = (torch.rand(10, 1, 2, 2), torch.full((10,), 7))
    source = opened([*BATCHES, small, small], "train=")
    assert {n: tuple(x.shape) for n, x in source.examples.items()} == {0: (1, 1, 4, 4), 6: (1, 1, 2, 2)}
    assert source.highest == 7


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        ({}, ()),
        (
            {"calibration_samples": 100},
            ("calibration_samples=100: train= has 60 samples, and all of them were taken",),
        ),
        ({"calibration_samples": 2000}, ()),
        (
            {"calibration": BATCHES, "calibration_samples": 20},
            ("calibration_samples=20 was not used: calibration= is read whole",),
        ),
        (
            {"calibration": itertools.cycle(BATCHES), "calibration_samples": 90},
            ("calibration= has no length; its first 90 samples were taken (calibration_samples=)",),
        ),
        ({"calibration": iter(BATCHES), "calibration_samples": 90}, ()),
    ],
)  # fmt: skip
def test_what_was_asked_and_not_used_is_said(given, notes):
    assert data(**given).notes == notes


def test_an_iterator_will_do_for_one_pass():
    assert len(take(iter(BATCHES), None, name="calibration=")) == 60
    assert len(take(itertools.cycle(BATCHES), 35, name="calibration=")) == 35


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (6, ()),
        (8, ("train= gave 6 batches in a pass of training; its length says 8",)),
        (4, ("train= has more than the 4 batches that its length says; the rest is not read",)),
    ],
)
def test_passes_of_training_that_are_not_as_long_as_said(length, said):
    source = opened(Counting(length=length), "train=")
    for epoch in range(2):
        assert len(list(source.epoch(10, seed=0, epoch=epoch))) == min(6, length)
    assert source.notes == said


def test_a_part_of_an_epoch_is_none_too_many():
    source = opened(Counting(), "train=")
    assert len(list(source.epoch(10, seed=0, epoch=0, fraction=0.5))) == 3
    assert source.notes == ()


def test_held_out_samples_are_as_many_in_every_pass():
    loader = Counting()
    source = opened(loader, "eval=")
    assert sum(len(y) for _, y in source.batches(1)) == 60
    loader.batches = BATCHES[:-1]
    with pytest.raises(UserError, match="eval=: gave 50 samples in this pass, and 60 in an earlier one"):
        list(source.batches(1))


class Failing(Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, at: int):
        if at == 15:
            raise KeyError("two\nlines")
        return X[at], Y[at]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_loader_raises_is_one_line_with_its_place(workers):
    source = LoaderSource(DataLoader(Failing(), batch_size=4, num_workers=workers), 20, "train=")
    with pytest.raises(
        UserError, match=r"^train=, batch 4: KeyError: .*test_data_loader.py, line \d+\)$"
    ) as said:
        list(source.epoch(4, seed=0, epoch=0))
    assert "\n" not in str(said.value)
    assert said.value.__cause__ is not None


def test_what_a_reading_of_ones_own_raises_is_one_line_with_its_place():
    # Once a bug: only what the loader itself raises was.
    source = LoaderSource(BATCHES, 60, "train=", reads=Reads(own=lambda batch: batch["x"]))
    with pytest.raises(UserError, match=r"^train=, batch 1: TypeError: .*test_data_loader.py, line \d+\)$"):
        next(source.checked())


def test_what_no_line_of_a_user_raised_has_no_place():
    assert raised(RuntimeError("worker is gone\nmore")) == "RuntimeError: worker is gone more"
    assert raised(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("abcdefghij", r"not a str \('abcdefghij', …\)"),
        (torch.full((10,), float("nan")), "fractions"),
        (torch.arange(10) * 10**7, "labels are classes"),
        (torch.zeros(10, dtype=torch.complex64), "fractions"),
        ({"y": 1}, "not a dict"),
    ],
)
def test_labels_that_are_no_classes(labels, words):
    with pytest.raises(UserError, match=f"^train=, batch 1: .*{words}"):
        opened([(X[:10], labels)], "train=")


def test_labels_of_other_kinds_are_classes():
    for labels in (Y[:10].numpy(), Y[:10].tolist(), Y[:10] > 0, Y[:10].to(torch.uint8), Y[:10].double()):
        ((_, found),) = opened([(X[:10], labels)], "train=").checked()
        assert found.tolist() == [int(label) for label in labels]


def test_batches_of_named_tensors_are_alike():
    named = {"input_ids": torch.ones(4, 5).long(), "attention_mask": torch.ones(4, 5).long()}
    odd = {"input_ids": torch.ones(4, 5).long()}
    for batch, words in (
        (({**named, "text": ["a"] * 4}, Y[:4]), "input 'text': a list of 4, and no tensor; drop it"),
        ((odd, Y[:4]), "some batches have other named inputs than the rest"),
        ((X[:4], Y[:4]), "some of the loader's batches are named tensors and some are not"),
        (({}, Y[:4]), "no inputs beside its labels"),
    ):
        with pytest.raises(UserError, match=words):
            take([(named, Y[:4]), batch], None, name="calibration=")
