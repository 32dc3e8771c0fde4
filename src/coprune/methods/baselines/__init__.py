"""Rival methods behind the same signature."""

from coprune.methods.baselines.rankings import RIVALS

__all__ = ["RIVALS"]
