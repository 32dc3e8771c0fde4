"""Accuracy back after surgery, without labels. Knows nothing of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coprune.lazy import exports

if TYPE_CHECKING:
    from coprune.recovery.base import LayerRecovery, Pair, Reconstruction, Recovered
    from coprune.recovery.batchnorm import reestimate_batchnorm
    from coprune.recovery.channel_map import kept_outputs, matched_outputs
    from coprune.recovery.reconstruction import reconstruct
    from coprune.recovery.registry import RECOVERIES, Recovery, find_recovery
    from coprune.recovery.sequential_least_squares import least_squares

__getattr__ = exports(__name__)

__all__ = [
    "RECOVERIES",
    "LayerRecovery",
    "Pair",
    "Reconstruction",
    "Recovered",
    "Recovery",
    "find_recovery",
    "kept_outputs",
    "least_squares",
    "matched_outputs",
    "reconstruct",
    "reestimate_batchnorm",
]
