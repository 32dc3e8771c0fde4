"""What a user asks a pruned model to keep."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from coprune.bounds import Points, Positive, Share


class Budget(BaseModel):
    """What was asked for; nothing means the method's own knee.

    Attributes:
        keep_macs: share of the MACs to keep.
        keep_params: share of the parameters to keep.
        keep_units: share of every group's units to keep.
        keep_heads: share of all attention heads of the model to keep; nothing else is removed.
        latency_ms: milliseconds that one sample may take, on the device and threads of the run.
        max_drop: largest loss of calibration accuracy, in points (0.5 is half a per cent).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_macs: Share | None = None
    keep_params: Share | None = None
    keep_units: Share | None = None
    keep_heads: Share | None = None
    latency_ms: Positive | None = None
    max_drop: Points | None = None

    @property
    def words(self) -> str:
        """For plan and page, e.g. ``keep_macs=0.5``."""
        given = [f"{k}={v:g}" for k, v in self.model_dump().items() if v is not None]
        return ", ".join(given) or "knee"

    @property
    def searched(self) -> bool:
        """Whether models are tried to find it, rather than counted."""
        return self.max_drop is not None or self.latency_ms is not None

    @property
    def empty(self) -> bool:
        """Whether nothing was asked."""
        return all(v is None for v in self.model_dump().values())
