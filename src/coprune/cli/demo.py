"""``coprune demo``: the bundled model on the bundled data, offline, with a report at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coprune.cli import options as o

MODEL, DATA = "coprune:resnet20@fashion-mnist", "fashion-mnist-sample"

TYPED = (
    f"prune --model {MODEL} --data {DATA} --calibration 1000 --method cosep --grid 4 "
    "--keep-macs 0.5 --finetune-epochs 5 --finetune-lr 0.01 --batch-size 64"
).split()
"""What a user would type for the same run; a test holds the two together."""


def demo(
    out: o.Out = Path("demo-run"),
    overwrite: Annotated[bool, typer.Option(help="Replace the run folder of an earlier demo.")] = True,
    seed: o.Seed = 0,
    threads: o.Threads = None,
) -> None:
    """Prune the bundled ResNet-20 to half of its MACs on bundled Fashion-MNIST images."""
    from coprune.cli.prune import summarise
    from coprune.run.job import PruneJob, run_prune
    from coprune.run.settings import PruneSettings
    from coprune.select import Budget
    from coprune.training import Recipe

    settings = PruneSettings(
        method="cosep",
        # Chosen on the calibration part: of 16 readings of the open points, sixteen cells an image
        # leave the best start for a short training.
        options={"grid": 4},
        budget=Budget(keep_macs=0.5),
        finetune=Recipe(epochs=5, lr=0.01, batch_size=64, distill=0.9),
        latency_seconds=3.0,
        seed=seed,
        threads=threads,
    )
    typer.echo(f"coprune {' '.join(TYPED)} --seed {seed} --out {out}", err=True)
    job = PruneJob(model=MODEL, data=DATA, calibration=1000, settings=settings)
    summarise(run_prune(job, out=out, overwrite=overwrite))
