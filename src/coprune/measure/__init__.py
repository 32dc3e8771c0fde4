"""Accuracy, MACs, parameters, file size, latency, peak memory. Knows nothing of methods."""

from coprune.measure.accuracy import NotFiniteError, Score, correctness, evaluate
from coprune.measure.latency import LatencyPlan, measure_engine, measure_latency, median_ms
from coprune.measure.macs import count_macs, count_params, layer_costs
from coprune.measure.memory import peak_memory

__all__ = [
    "LatencyPlan",
    "NotFiniteError",
    "Score",
    "correctness",
    "count_macs",
    "count_params",
    "evaluate",
    "layer_costs",
    "measure_engine",
    "measure_latency",
    "median_ms",
    "peak_memory",
]
