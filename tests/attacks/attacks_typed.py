"""Rows of bad input: typed."""

from __future__ import annotations

from attack import Attack

ATTACKS: list[Attack] = []
