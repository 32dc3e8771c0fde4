"""The training loop (🤗 Accelerate), its recipes and checkpoints. Knows nothing of pruning."""

from coprune.training.checkpoint import Checkpoint
from coprune.training.loop import DivergedError, FitLog, fit
from coprune.training.recipe import Recipe
from coprune.training.suited import finetuning

__all__ = ["Checkpoint", "DivergedError", "FitLog", "Recipe", "finetuning", "fit"]
