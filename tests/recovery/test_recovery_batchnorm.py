"""Batch-norm re-estimation against statistics by hand, and where there is nothing to learn them from."""

import torch
from torch import nn

import tiny
from coprune.recovery import reestimate_batchnorm


def test_statistics_are_the_mean_over_the_batches():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 3))
    source = tiny.source(24)
    assert reestimate_batchnorm(net, source, batch_size=8) == 1
    parts = [x.flatten(1) for x, _ in source.batches(8)]
    assert torch.allclose(net[1].running_mean, torch.stack([p.mean(0) for p in parts]).mean(0), atol=1e-5)
    assert torch.allclose(net[1].running_var, torch.stack([p.var(0) for p in parts]).mean(0), atol=1e-4)


def test_one_sample_has_no_variance_and_nothing_is_forgotten():
    # Once a bug: all statistics were wiped, means 0 and variances 1.
    net = tiny.network("resnet20")
    before = tiny.state_of(net)
    assert reestimate_batchnorm(net, tiny.source(1)) == 0
    assert tiny.same_state(before, tiny.state_of(net))
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.BatchNorm2d))
