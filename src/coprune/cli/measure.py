"""``coprune measure``: the model of a run, measured here."""

from __future__ import annotations

from coprune.cli.command import Run
from coprune.cli.terminal import say
from coprune.errors import UserError, setting
from coprune.pipeline.jobs import Measuring


def measure(run: Run, asked: Measuring) -> None:
    """Measure the model of a run: MACs, parameters, file size, peak memory, latency, metric."""
    ways = f"{setting('data')} or {setting('input_shape')}"
    if not asked.data and not asked.input_shape:
        raise UserError(f"measure needs {ways} to know what the model reads")
    if asked.data and asked.input_shape:
        raise UserError(f"give {ways}, not both")
    from coprune.pipeline.measure import measure_run

    for line in measure_run(run, asked):
        say(line)
