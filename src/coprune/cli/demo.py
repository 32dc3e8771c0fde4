"""``coprune demo``: the bundled model on the bundled data, offline, with a report at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coprune.cli import options as o

MODEL, DATA = "coprune:resnet20@fashion-mnist", "fashion-mnist-sample"


def demo(
    out: o.Out = Path("demo-run"),
    overwrite: Annotated[bool, typer.Option(help="Replace the run folder of an earlier demo.")] = True,
    seed: o.Seed = 0,
    threads: o.Threads = None,
) -> None:
    """Prune the bundled ResNet-20 to half of its MACs on bundled Fashion-MNIST images."""
    from coprune.cli.prune import summarise
    from coprune.run.job import PruneJob, run_prune
    from coprune.run.prune import PruneSettings
    from coprune.select import Budget
    from coprune.training import Recipe

    settings = PruneSettings(
        method="cosep",
        budget=Budget(keep_macs=0.5),
        finetune=Recipe(epochs=4, lr=0.02, batch_size=64, distill=0.5),
        latency_seconds=3.0,
        seed=seed,
        threads=threads,
    )
    typer.echo(f"coprune prune --model {MODEL} --data {DATA} --method cosep --keep-macs 0.5 …", err=True)
    job = PruneJob(model=MODEL, data=DATA, calibration=1000, settings=settings)
    summarise(run_prune(job, out=out, overwrite=overwrite))
