"""The model tells what of a user's batch are inputs; the data tell the model how many classes there are."""

from __future__ import annotations

import sys

import pytest
import torch

from coprune.data import DataSet, TreeSource
from coprune.pipeline.jobs import PruneJob
from coprune.pipeline.opening import offered_by, open_both

MINE = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)
    def forward(self, left, right):
        return self.layer(torch.cat([left, right], 1))

class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
    def forward(self, x):
        return self.layer(x)

made = []
def two(): return Two()
def one(): return One()
def pairs():
    made.append(1)
    x = torch.arange(60.0).view(20, 3)
    return list(zip(x.split(5), x.split(5)))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "opening_nets.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    yield "python:opening_nets:"
    sys.modules.pop("opening_nets", None)


@pytest.mark.parametrize(("model", "inputs", "times"), [("two", 2, 2), ("one", 1, 1)])
def test_how_many_inputs_a_model_takes_says_what_a_batch_is(mine, model, inputs, times):
    job = PruneJob(model=f"{mine}{model}", data=f"{mine}pairs", task="outputs")
    _, data = open_both(job, seed=0)
    x, y = next(data.calibration.batches(4))
    assert isinstance(x, tuple) == (inputs == 2)
    assert (y is None) == (inputs == 2)
    assert len(sys.modules["opening_nets"].made) == times


def test_what_data_offer_a_model():
    tokens = TreeSource.of([({"input_ids": torch.ones(4, 3).long()}, torch.zeros(4, 3).long())])
    images = TreeSource.of([(torch.rand(4, 3, 8, 8), None)])
    tags = DataSet("test", tokens, tokens, tokens, None, tokens.input_shape, "", names=("a", "b"))
    assert offered_by(tags) == {"num_classes": 2}
    assert offered_by(DataSet("test", None, images, images, None, (3, 8, 8), "")) == {"in_channels": 3}
    assert offered_by(DataSet("test", None, images, images, 5, (3, 8, 8), "")) == {
        "in_channels": 3,
        "num_classes": 5,
    }
