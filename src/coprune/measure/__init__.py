"""Accuracy, MACs, parameters, file size, latency, peak memory. Knows nothing of methods."""

from coprune.measure.accuracy import Score, evaluate
from coprune.measure.latency import LatencyPlan, measure_latency
from coprune.measure.macs import count_macs, count_params, layer_costs
from coprune.measure.memory import peak_memory
from coprune.measure.stage import measure_stage

__all__ = [
    "LatencyPlan",
    "Score",
    "count_macs",
    "count_params",
    "evaluate",
    "layer_costs",
    "measure_latency",
    "measure_stage",
    "peak_memory",
]
