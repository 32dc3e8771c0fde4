"""Rows of bad input: loaders."""

from __future__ import annotations

from attack import Attack

ATTACKS: list[Attack] = []
