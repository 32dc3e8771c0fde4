"""Rival methods behind the same signature."""

from coprune.baselines.rankings import RIVALS

__all__ = ["RIVALS"]
