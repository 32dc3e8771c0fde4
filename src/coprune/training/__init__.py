"""The training loop (🤗 Accelerate), its recipes and checkpoints. Knows nothing of pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coprune.lazy import exports

if TYPE_CHECKING:
    from coprune.training.checkpoint import Checkpoint
    from coprune.training.defaults import finetuning
    from coprune.training.loop import DivergedError, FitLog, fit
    from coprune.training.recipe import Recipe

__getattr__ = exports(__name__)

__all__ = ["Checkpoint", "DivergedError", "FitLog", "Recipe", "finetuning", "fit"]
