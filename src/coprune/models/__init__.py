"""Model names → modules. Knows nothing of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coprune.lazy import exports

if TYPE_CHECKING:
    from coprune.models.names import ModelSource
    from coprune.models.registry import accepted_arguments, build, remember, source_of

__getattr__ = exports(__name__)

__all__ = ["ModelSource", "accepted_arguments", "build", "remember", "source_of"]
