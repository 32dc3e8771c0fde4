"""What a user types for a recovery."""

from __future__ import annotations

from typing import Literal, get_args

How = Literal["least-squares", "reconstruction", "channel-least-squares", "bn", "none"]

RECOVERIES: tuple[str, ...] = get_args(How)
