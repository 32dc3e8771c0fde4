"""Accuracy back after surgery, without training. Knows nothing of methods."""

from coprune.recover.batchnorm import reestimate_batchnorm

__all__ = ["reestimate_batchnorm"]
