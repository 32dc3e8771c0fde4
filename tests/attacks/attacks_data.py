"""Rows of bad input: data of any task by its name, loaders of one's own, batches of no form."""

from __future__ import annotations

import sys

import numpy as np
import torch
from attack import Attack, World
from torch import nn

from texts import tiny_tokenizer

NAMES, BATCHES = "Data for any task", "Batches of any form"

PRUNE = "coprune prune --model base --keep-macs 0.5 --out out --data"

MINE = """
import torch
batch = (torch.zeros(8, 1, 12, 12), torch.arange(8) % 4)
def wrong(): return {"training": [batch]}
def many(): return ([batch],) * 4
def fails(): raise KeyError("gone")
def nothing(): return None
def text(): return [("a", "b")]
number = 3
"""


def mine(world: World) -> None:
    """``mine.py``: functions that return no loaders."""
    (world.folder / "mine.py").write_text(MINE)
    sys.modules.pop("mine", None)  # another attack's


def texts(world: World) -> None:
    """Texts in the wrong layout, and a tokenizer."""
    tiny_tokenizer().save_pretrained(world.folder / "tok")
    (world.folder / "one.txt").write_text("a single paragraph\n")
    (world.folder / "scores.tsv").write_text("text\tlabel\nthe film\tgood\n" * 20)
    (world.folder / "plain.tsv").write_text("text\n" + "the film\n" * 20)


def empty(world: World) -> None:
    """A folder without a picture."""
    (world.folder / "photos").mkdir()
    (world.folder / "photos" / "notes.txt").write_text("none yet")


def odd(world: World) -> None:
    """Archives with targets that are none, or of two kinds."""
    x = np.zeros((40, 1, 12, 12), np.float32)
    np.savez(world.folder / "words.npz", x_train=x, y_train=np.array(["a"] * 40))
    np.savez(world.folder / "kinds.npz", x_train=x, y_train=np.zeros(40), x_test=x, y_test=np.zeros((40, 2)))
    np.savez(world.folder / "other.npz", images=x)


class Pair(nn.Module):
    """Takes two inputs."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


def nets(world: World) -> None:
    """A network of two inputs, and batches of the others."""
    x = torch.rand(40, 1, 12, 12)
    world.names.update(pair=Pair(), x=x, prune=world.names["coprune"].prune)


def named(given: str, line: str, **more) -> Attack:
    return Attack(NAMES, f"{PRUNE} {given}", f"coprune: {line}", **more)


def batch(given: str, line: str) -> Attack:
    return Attack(BATCHES, given, line, makes=nets, shown=given.replace("prune(", "coprune.prune(", 1))


ATTACKS: list[Attack] = [
    named("folder:nothing", "folder:nothing: no such folder"),
    named("folder:photos", "folder:photos: no images in photos; their names end in .jpg, …", makes=empty),
    named("lines:gone.txt --tokenizer tok", "lines:gone.txt: no such file: gone.txt", makes=texts),
    named(
        "lines:one.txt --tokenizer tok --task text-generation",
        "lines:one.txt: a single paragraph; give more, with empty lines between them",
        makes=texts,
    ),
    named(
        "lines:one.txt --tokenizer tok --task feature-extraction",
        "1 samples are too few to hold some of them out; give more, or a split",
        makes=texts,
    ),
    named(
        "tsv:scores.tsv --tokenizer tok --task regression",
        "tsv:scores.tsv: could not convert string to float: 'good'; regression needs a number a row",
        makes=texts,
    ),
    named(
        "tsv:plain.tsv --tokenizer tok --task seq2seq",
        "seq2seq needs a text for every text; give a column text_pair",
        makes=texts,
    ),
    named(
        "npz:words.npz --task regression",
        "npz:words.npz, y_train: <U1 [40]; targets are numbers [N, …]",
        makes=odd,
    ),
    named(
        "npz:kinds.npz --task regression",
        "npz:kinds.npz, held-out: training targets are of another shape or type than held-out ones; they "
        "must be alike",
        makes=odd,
    ),
    named(
        "npz:other.npz --task outputs",
        "npz:other.npz: x_train missing; needs x_train (found: images)",
        makes=odd,
    ),
    named("python:mine:absent", "data 'python:mine:absent': mine has no callable 'absent'; …", makes=mine),
    named(
        "python:mine.py",
        "data 'python:mine.py': write python:package.module:loaders; did you mean python:mine:loaders, …",
        makes=mine,
    ),
    named("python:mine:number", "data 'python:mine:number' is no function but 3; …", makes=mine),
    named(
        "python:mine:fails",
        "data 'python:mine:fails' fails in mine.py, line 6: KeyError: 'gone'",
        makes=mine,
    ),
    named(
        "python:mine:wrong",
        "python:mine:wrong: a loader 'training'; names are train, eval, validation, calibration",
        makes=mine,
    ),
    named(
        "python:mine:many",
        "python:mine:many: a tuple of 4; return (train, eval), (train, eval, validation), or a dict",
        makes=mine,
    ),
    named("python:mine:nothing", "python:mine:nothing: train= is None; give batches …", makes=mine),
    named(
        "python:mine:text",
        "python:mine:text: calibration=, batch 1: inputs: a str, and no tensor; give one tensor [B, …], or a "
        "dict of named ones",
        makes=mine,
    ),
    batch(
        "prune(pair, calibration=[x, x, x])",
        "calibration=, batch 1: batches of 1, but the model takes 2 inputs; give all of them",
    ),
    batch(
        "prune(pair, calibration=[{'left': x, 'other': x}])",
        "calibration=, batch 1: named tensors (left, other) without 'right', which the model needs; add it",
    ),
    batch(
        "prune(pair, calibration=[{'a': x, 'b': x, 'c': x, 'labels': x}])",
        "calibration=, batch 1: named tensors (a, b, c, labels), none of which the model takes (left, "
        "right); rename them",
    ),
    batch(
        "prune(pair, calibration=[(x, x[:3])])",
        "calibration=, batch 1: inputs of 3 and 40 samples in one batch; give each input [B, …]",
    ),
    batch(
        "prune(pair, calibration=[(x, x, x[:3])])",
        "calibration=, batch 1: 40 samples but 3 targets; give one a sample, or collect= that makes such",
    ),
    batch(
        "prune(pair, calibration=[(x, x)], collect=lambda batch: batch[0])",
        "calibration=, batch 1: collect= returns a Tensor [40, 1, 12, 12]; return (inputs, targets), or "
        "(inputs, None)",
    ),
    batch(
        "prune(pair, calibration=[(x, x / 0)])",
        "calibration=: NaN or Inf in 40 of 40 samples; clean or drop them",
    ),
    batch(
        "prune(pair, calibration=[(x[:1], x[:1])])",
        "calibration=: a single sample; give more, and held-out ones as eval=",
    ),
    batch("prune(pair, eval=[(x, x)])", "train= is None; give batches …"),
]
