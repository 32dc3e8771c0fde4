"""safetensors + JSON in, model out; atomic. Knows nothing of methods."""

from coprune.store.model import load, save_model
from coprune.store.names import open_model

__all__ = ["load", "open_model", "save_model"]
