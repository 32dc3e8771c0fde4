"""``result.json``: what a run did and what it measured. A stable contract, schema 1.

Knows nothing of torch. ``value`` is always a fraction in [0, 1] on the held-out split; calibration
figures, which decisions were based on, are kept apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coprune.files import read_document, write_json

SCHEMA = 1

StageName = Literal["base", "pruned", "recovered", "finetuned"]


class Stage(BaseModel):
    """The model after one step.

    Attributes:
        name: ``base``, ``pruned`` (right after surgery), ``recovered`` (without labels) or
            ``finetuned``.
        value: held-out top-1, a fraction.
        macs: multiply-adds of one sample.
        params: number of parameters.
        calibration: top-1 on the calibration samples that decisions may use, when it was measured.
        bytes: size of the weights on disk.
        peak_memory: bytes of tensors alive at the worst moment of one forward pass of one sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: StageName
    metric: str = "top1"
    value: float = Field(ge=0, le=1)
    macs: int
    params: int
    calibration: float | None = None
    bytes: int | None = None
    peak_memory: int | None = None


class Latency(BaseModel):
    """Time of one forward pass, base and pruned measured in turn on the same inputs.

    Attributes:
        base_ms, pruned_ms: medians in milliseconds.
        base_spread_ms, pruned_spread_ms: 10th and 90th percentile.
        ratio: median of base/pruned taken pair by pair (2.0: twice as fast).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    device: str
    threads: int
    batch: int
    base_ms: float
    pruned_ms: float
    base_spread_ms: tuple[float, float]
    pruned_spread_ms: tuple[float, float]
    ratio: float
    repeats: int


TAKEN_BACK = (
    "reconstruction came no nearer to the unpruned model on samples that it did not learn from; "
    "the weights of least squares stayed"
)
"""A note of a run whose model is one of least squares after all."""


HANDED_BACK = "the model is handed back as it came"
"""How the note of a run ends in which recovery would have done harm."""


class Result(BaseModel):
    """All figures of one run.

    Attributes:
        processes: how many did it together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(SCHEMA, alias="schema")
    method: str
    seed: int
    units: dict[str, int]
    stages: tuple[Stage, ...]
    latency: tuple[Latency, ...]
    seconds: dict[str, float]
    versions: dict[str, str]
    processes: int = 1
    search: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def stage(self, name: str) -> Stage | None:
        """The stage of that name, or None."""
        return next((s for s in self.stages if s.name == name), None)

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        write_json(Path(path), self.model_dump(by_alias=True, mode="json"))

    @staticmethod
    def load(path: str | Path) -> Result:
        """Read a result.

        Raises:
            UserError: missing, truncated or foreign.
        """
        return read_document(Path(path), Result, what="result", schema=SCHEMA)
