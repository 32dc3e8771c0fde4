"""What a user asks a pruned model to keep."""

from __future__ import annotations

from typing import Any, Literal, get_args

from coprune.bounds import Drop, Positive, Share
from coprune.options import Options

Quantity = Literal["macs", "params"]
"""What a model can be too large in."""


class Budget(Options, title="What to keep"):
    """What was asked for; nothing means the method's own knee.

    Attributes:
        keep_macs: share of the MACs to keep, in (0, 1].
        keep_params: share of the parameters to keep, in (0, 1].
        keep_units: share of every group's units to keep, in (0, 1].
        keep_heads: share of all attention heads to keep, in (0, 1]; nothing else goes.
        latency_ms: milliseconds that one sample may take here, on these threads.
        max_drop: smallest model that loses at most this much on calibration data: points of a share such as
            top-1, else in the metric's own unit; ``1%`` is relative to the unpruned value.
    """

    keep_macs: Share | None = None
    keep_params: Share | None = None
    keep_units: Share | None = None
    keep_heads: Share | None = None
    latency_ms: Positive | None = None
    max_drop: Drop | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """Option → what was asked, where something was."""
        return self.model_dump(exclude_none=True)

    @property
    def words(self) -> str:
        """For plan and page, e.g. ``keep_macs=0.5``."""
        given = (f"{k}={v}" if isinstance(v, str) else f"{k}={v:g}" for k, v in self.asked.items())
        return ", ".join(given) or "knee"

    @property
    def shares(self) -> dict[Quantity, float]:
        """Quantity → share of it, where that was asked for."""
        return {q: self.asked[f"keep_{q}"] for q in get_args(Quantity) if f"keep_{q}" in self.asked}

    @property
    def searched(self) -> bool:
        """Whether models are tried to find it, rather than counted."""
        return self.max_drop is not None or self.latency_ms is not None

    @property
    def empty(self) -> bool:
        """Whether nothing was asked."""
        return not self.asked
