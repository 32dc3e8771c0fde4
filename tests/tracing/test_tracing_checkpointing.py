"""Whether the installed PyTorch is one whose gradient checkpointing is known."""

from __future__ import annotations

import torch
import torch.utils.checkpoint as theirs

from coprune.tracing import checkpointing


def test_the_version_is_known():
    """Outside: read torch/utils/checkpoint.py, run the tests of odd models, then widen VERSIONS."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    assert checkpointing.VERSIONS[0] <= version < checkpointing.VERSIONS[1]


def test_what_is_replaced_is_there_and_comes_back():
    before = {name: vars(theirs)[name] for name in checkpointing._OURS if name in vars(theirs)}
    assert {"CheckpointFunction", "_checkpoint_without_reentrant_generator"} <= before.keys()
    with checkpointing.unchecked(), checkpointing.unchecked():
        assert all(vars(theirs)[name] is checkpointing._OURS[name] for name in before)
    assert all(vars(theirs)[name] is value for name, value in before.items())
