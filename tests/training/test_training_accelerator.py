"""Accelerate for one training: its own device and precision, and what the caller had is left alone."""

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import nn

import tiny
from coprune.errors import UserError
from coprune.training import Recipe, fit


def train(precision="auto"):
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    fit(net, tiny.source(16), Recipe(epochs=1, batch_size=8, precision=precision), seed=0)


def test_the_callers_own_accelerator_survives():
    """Its process, too, may have begun on another device or with another precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    theirs = Accelerator(mixed_precision="bf16", cpu=True)
    held = dict(PartialState._shared_state)
    train()
    assert theirs.mixed_precision == "bf16"
    assert PartialState._shared_state == held
    AcceleratorState._reset_state(reset_partial_state=True)
    train()
    assert not PartialState._shared_state


def test_half_precision_needs_a_gpu():
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        train("fp16")
