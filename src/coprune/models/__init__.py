"""Model names → modules. Knows nothing of methods."""

from coprune.models.registry import Source, accepted_arguments, build, remember, source_of

__all__ = ["Source", "accepted_arguments", "build", "remember", "source_of"]
