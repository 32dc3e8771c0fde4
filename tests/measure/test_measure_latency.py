"""Latency on a clock that only the models move: exact figures, and fair turns."""

import pytest
import torch
from torch import nn

from coprune.measure import LatencyPlan, measure_latency, median_ms
from coprune.measure import latency as module


class Clocked(nn.Module):
    """Moves a clock by its milliseconds and notes that it ran."""

    def __init__(self, name, log, milliseconds):
        super().__init__()
        self.name, self.log, self.milliseconds = name, log, iter(milliseconds)

    def forward(self, x):
        self.log.append((self.name, tuple(x.shape), torch.is_inference_mode_enabled()))
        self.log.now += next(self.milliseconds) / 1e3
        return x


class Log(list):
    now = 0.0


@pytest.fixture
def clock(monkeypatch):
    log = Log()
    monkeypatch.setattr(module.time, "perf_counter", lambda: log.now)
    return log


def forever(value):
    while True:
        yield value


EXAMPLE = torch.zeros(1, 3, 2, 2)


def test_figures_are_exact(clock):
    base, pruned = Clocked("base", clock, forever(4)), Clocked("pruned", clock, forever(2))
    (found,) = measure_latency(base, pruned, EXAMPLE, LatencyPlan(batches=(8,), repeats=10))
    assert (found.base_ms, found.pruned_ms, found.ratio) == pytest.approx((4, 2, 2))
    assert found.base_spread_ms == pytest.approx((4, 4))
    assert (found.batch, found.repeats, found.device) == (8, 10, "cpu")


def test_the_two_take_turns_and_warm_up_is_not_counted(clock):
    base = Clocked("base", clock, [1000, 1000, *[4] * 6])
    pruned = Clocked("pruned", clock, [1000, 1000, *[2] * 6])
    (found,) = measure_latency(base, pruned, EXAMPLE, LatencyPlan(batches=(1,), repeats=6, warmup=2))
    assert found.base_ms == pytest.approx(4)
    assert [name for name, *_ in clock] == ["base", "pruned"] * 2 + ["base", "pruned", "pruned", "base"] * 3


def test_the_ratio_is_taken_pair_by_pair(clock):
    # A noisy machine: the median of 2, 3, ½, 2, 2 is 2, while the medians 8 and 3 say 2.67.
    base = Clocked("base", clock, [2, 9, 10, 8, 4])
    pruned = Clocked("pruned", clock, [1, 3, 20, 4, 2])
    (found,) = measure_latency(base, pruned, EXAMPLE, LatencyPlan(batches=(1,), repeats=5, warmup=0))
    assert found.ratio == pytest.approx(2)
    assert (found.base_ms, found.pruned_ms) == pytest.approx((8, 3))
    assert found.base_spread_ms[0] < found.base_ms < found.base_spread_ms[1]


def test_time_is_limited_but_five_pairs_are_measured(clock):
    base, pruned = Clocked("base", clock, forever(400)), Clocked("pruned", clock, forever(100))
    (found,) = measure_latency(
        base, pruned, EXAMPLE, LatencyPlan(batches=(1,), repeats=50, seconds=1, warmup=0)
    )
    assert found.repeats == 5
    (found,) = measure_latency(
        base, pruned, EXAMPLE, LatencyPlan(batches=(1,), repeats=50, seconds=4, warmup=0)
    )
    assert found.repeats == 9  # 8 pairs of 0.5 s are not *more* than 4 s


def test_warm_up_of_slow_networks_takes_no_longer_than_what_is_measured(clock):
    base, pruned = Clocked("base", clock, forever(3000)), Clocked("pruned", clock, forever(1000))
    measure_latency(base, pruned, EXAMPLE, LatencyPlan(batches=(1,), seconds=5, warmup=5))
    assert len(clock) == 2 * (2 + 5)  # after two pairs of 4 s warm-up ends; five are measured


def test_what_is_measured_unless_somebody_says_otherwise():
    # What tests run takes fewer, see few_timings.
    assert (LatencyPlan.batches, LatencyPlan.repeats, LatencyPlan.seconds, LatencyPlan.warmup) == (
        (1, 32),
        50,
        5.0,
        5,
    )


def test_every_batch_size_is_measured_without_gradients(clock):
    base, pruned = Clocked("base", clock, forever(1)), Clocked("pruned", clock, forever(1))
    found = measure_latency(base, pruned, EXAMPLE, LatencyPlan(batches=(1, 5), repeats=5))
    assert [f.batch for f in found] == [1, 5]
    assert {shape for _, shape, _ in clock} == {(1, 3, 2, 2), (5, 3, 2, 2)}
    assert all(inference for *_, inference in clock)


def test_real_networks_give_sane_figures(traced, example):
    net, _ = traced["perceptron"]
    (found,) = measure_latency(net, net, example, LatencyPlan(batches=(2,), repeats=15))
    assert found.repeats == 15
    assert 0 < found.base_spread_ms[0] <= found.base_ms <= found.base_spread_ms[1]
    assert found.ratio > 0
    assert found.threads == torch.get_num_threads()


def test_the_median_of_one_sample_after_warming_up(clock):
    # Five passes warm up; the median of 9, 2, 4 is 4.
    net = Clocked("net", clock, [1000] * 5 + [9, 2, 4])
    assert median_ms(net, EXAMPLE.repeat(6, 1, 1, 1), repeats=3) == pytest.approx(4)
    assert len(clock) == 8
    assert {shape for _, shape, _ in clock} == {(1, 3, 2, 2)}
    assert all(inference for *_, inference in clock)


def test_the_median_is_taken_in_evaluation_mode(clock):
    net = Clocked("net", clock, forever(1)).train()
    median_ms(net, EXAMPLE, repeats=1)
    assert not net.training
