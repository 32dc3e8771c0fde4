"""Baselines behind the same signature."""
