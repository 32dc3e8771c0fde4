"""The training loop (🤗 Accelerate), its recipes and checkpoints. Knows nothing of pruning."""

from coprune.training.checkpoint import Checkpoint
from coprune.training.loop import FitLog, fit
from coprune.training.recipe import Recipe, finetuning

__all__ = ["Checkpoint", "FitLog", "Recipe", "finetuning", "fit"]
