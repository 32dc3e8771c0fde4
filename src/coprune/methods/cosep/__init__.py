"""CoSeP: class-conditional moments → separability → clusters → silhouette's knee, a group at a time."""

from coprune.methods.cosep.settings import COSEP, CoSePSettings

__all__ = ["COSEP", "CoSePSettings"]
