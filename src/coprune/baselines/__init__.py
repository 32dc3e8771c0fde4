"""Rival methods behind the same signature."""

from coprune.baselines.rankings import BN_SCALE, FPGM, MAGNITUDE, RANDOM, TAYLOR

__all__ = ["BN_SCALE", "FPGM", "MAGNITUDE", "RANDOM", "TAYLOR"]
