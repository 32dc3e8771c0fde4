"""Rows of bad input: figures."""

from __future__ import annotations

from attack import Attack

ATTACKS: list[Attack] = []
