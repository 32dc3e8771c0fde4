"""Accuracy back after surgery, without labels. Knows nothing of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coprune.lazy import exports

if TYPE_CHECKING:
    from coprune.recovery.batchnorm import reestimate_batchnorm
    from coprune.recovery.channel_map import kept_outputs, matched_outputs
    from coprune.recovery.names import RECOVERIES, How
    from coprune.recovery.reconstruction import Reconstruction, reconstruct
    from coprune.recovery.registry import Recovered, recovered
    from coprune.recovery.sequential_least_squares import LayerRecovery, least_squares

__getattr__ = exports(__name__)

__all__ = [
    "RECOVERIES",
    "How",
    "LayerRecovery",
    "Reconstruction",
    "Recovered",
    "kept_outputs",
    "least_squares",
    "matched_outputs",
    "reconstruct",
    "recovered",
    "reestimate_batchnorm",
]
