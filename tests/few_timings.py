"""Times that nobody looks at are taken five times, not fifty; imported by what runs tests' commands."""

from coprune.measure import LatencyPlan

_REPEATS, _WARMUP = 5, 1

_batches, _, _seconds, _ = LatencyPlan.__init__.__defaults__
LatencyPlan.__init__.__defaults__ = (_batches, _REPEATS, _seconds, _WARMUP)
