"""Rows of bad input: models."""

from __future__ import annotations

from attack import Attack

ATTACKS: list[Attack] = []
