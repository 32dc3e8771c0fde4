"""The training loop (🤗 Accelerate), its recipes and checkpoints. Knows nothing of pruning."""

from coprune.training.checkpoint import Checkpoint
from coprune.training.defaults import finetuning
from coprune.training.loop import DivergedError, FitLog, fit
from coprune.training.recipe import Recipe

__all__ = ["Checkpoint", "DivergedError", "FitLog", "Recipe", "finetuning", "fit"]
