"""One thread, so that sums have one order; tiny networks that are traced once."""

from __future__ import annotations

import gc
import os

# Before PyTorch reads it, and for what tests start: processes with a thread a core each wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# And where two threads are the point, they wait asleep: the other core may be taken.
os.environ["OMP_WAIT_POLICY"] = "passive"

import pytest
import torch
from hypothesis import settings
from torch import nn

import few_timings  # noqa: F401
import tiny
from coprune.groups import Units, find_units

pytest_plugins = ["commands"]

torch.set_num_threads(1)
# Derandomised: a suite that fails must fail again. No deadline: this may share a busy machine.
settings.register_profile("coprune", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("coprune")


@pytest.fixture(autouse=True)
def same_draws_every_time() -> None:
    """Whatever a test draws without naming a seed is drawn alike in every run and every order."""
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def nothing_old_to_search_for_garbage() -> None:
    """Every training looks for garbage; among all that is imported that takes a quarter of a second."""
    gc.collect()
    gc.freeze()
    gc.collect()  # few are left: from now on garbage is looked for often


EXAMPLE = torch.zeros(1, 1, 12, 12)


@pytest.fixture(scope="session")
def example() -> torch.Tensor:
    """One black image ``[1, 1, 12, 12]``, to trace and count with."""
    return EXAMPLE


@pytest.fixture(scope="session")
def traced() -> dict[str, tuple[nn.Module, Units]]:
    """Name → network and its units. Shared: no test may change these networks."""
    networks: dict[str, nn.Module] = {
        "resnet20": tiny.network("resnet20"),
        "resnet56": tiny.network("resnet56", width=3),
        "vgg16_bn": tiny.network("vgg16_bn", width=3),
        "flattened": tiny.randomise(tiny.Flattened()),
        "perceptron": tiny.randomise(tiny.Perceptron()),
        "depthwise": tiny.randomise(tiny.Depthwise()),
    }
    return {name: (net, find_units(net, EXAMPLE)) for name, net in networks.items()}
