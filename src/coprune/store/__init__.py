"""safetensors + JSON in, model out; atomic. Knows nothing of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coprune.lazy import exports

if TYPE_CHECKING:
    from coprune.store.model import load, save_model
    from coprune.store.open_named import open_model

__getattr__ = exports(__name__)

__all__ = ["load", "open_model", "save_model"]
