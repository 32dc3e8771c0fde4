"""Rows of bad input: folders."""

from __future__ import annotations

from attack import Attack

ATTACKS: list[Attack] = []
