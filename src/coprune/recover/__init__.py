"""Accuracy back after surgery, without labels. Knows nothing of methods."""

from coprune.recover.batchnorm import reestimate_batchnorm
from coprune.recover.how import RECOVERIES, How, Recovered, recovered
from coprune.recover.kept import kept_outputs, matched_outputs
from coprune.recover.reconstruction import Reconstruction, reconstruct
from coprune.recover.sequential import LayerRecovery, least_squares

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
