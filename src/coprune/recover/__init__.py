"""Accuracy back after surgery, without training. Knows nothing of methods."""

from coprune.recover.batchnorm import reestimate_batchnorm
from coprune.recover.kept import kept_outputs, matched_outputs
from coprune.recover.sequential import LayerRecovery, least_squares

__all__ = ["LayerRecovery", "kept_outputs", "least_squares", "matched_outputs", "reestimate_batchnorm"]
