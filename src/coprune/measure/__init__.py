"""Accuracy, MACs, parameters, file size, latency, peak memory. Knows nothing of methods."""

from coprune.measure.evaluation import NotFiniteError, Reference, Score, evaluate, lost
from coprune.measure.latency import LatencyPlan, measure_engine, measure_latency, median_ms
from coprune.measure.macs import count_macs, count_params, layer_costs
from coprune.measure.memory import peak_memory

__all__ = [
    "LatencyPlan",
    "NotFiniteError",
    "Reference",
    "Score",
    "count_macs",
    "count_params",
    "evaluate",
    "layer_costs",
    "lost",
    "measure_engine",
    "measure_latency",
    "median_ms",
    "peak_memory",
]
