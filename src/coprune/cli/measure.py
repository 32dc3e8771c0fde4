"""``coprune measure``: the model of a run, measured here."""

from __future__ import annotations

from coprune.bounds import Length
from coprune.cli.command import Run
from coprune.cli.terminal import say
from coprune.errors import UserError, setting
from coprune.pipeline.settings import Machine, Timing, Trust


class Measuring(Timing, Machine, Trust):
    """What is measured, and on what.

    Attributes:
        data: also measure accuracy on this data's held-out part.
        input_shape: of one sample, e.g. 1,28,28; not needed with --data.
        engine: what to time with: torch, onnxruntime, or both.
    """

    data: str | None = None
    input_shape: tuple[Length, ...] = ()
    engine: tuple[str, ...] = ("torch",)


def measure(run: Run, asked: Measuring) -> None:
    """Measure the model of a run: MACs, parameters, file size, peak memory, latency, accuracy."""
    ways = f"{setting('data')} or {setting('input_shape')}"
    if not asked.data and not asked.input_shape:
        raise UserError(f"measure needs {ways} to know what the model reads")
    if asked.data and asked.input_shape:
        raise UserError(f"give {ways}, not both")
    from coprune.pipeline.measure import measure_run

    found = measure_run(
        run,
        data=asked.data or None,
        shape=asked.input_shape,
        batches=asked.latency_batches,
        threads=asked.threads,
        device=asked.device,
        engines=asked.engine,
        trust=asked.trust,
    )
    for line in found:
        say(line)
