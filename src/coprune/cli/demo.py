"""``coprune demo``: the bundled model on the bundled data, offline, with a report at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coprune.cli import options as o
from coprune.errors import UserError

MODEL, DATA = "coprune:resnet20@fashion-mnist", "fashion-mnist-sample"

TYPED = f"prune --model {MODEL} --data {DATA} --calibration 1000 --keep-macs 0.5".split()
"""What a user would type for the same run; a test holds the two together."""


def demo(
    out: o.Out = Path("demo-run"),
    overwrite: Annotated[bool, typer.Option(help="Replace the run folder of an earlier demo.")] = True,
    resume: o.Resume = False,
    seed: o.Seed = 0,
    threads: o.Threads = None,
) -> None:
    """Prune the bundled ResNet-20 to half of its MACs on bundled images, without training."""
    from coprune.budget.counts import Budget
    from coprune.cli.parsing import validated
    from coprune.cli.prune import summarise
    from coprune.pipeline.jobs import PruneJob
    from coprune.pipeline.prune import run_prune
    from coprune.pipeline.run_folder import check_out
    from coprune.pipeline.settings import PruneSettings
    from coprune.training import finetuning

    settings = validated(
        PruneSettings,
        budget=Budget(keep_macs=0.5),
        finetune=finetuning(),
        latency_seconds=3.0,
        seed=seed,
        threads=threads,
    )
    job = PruneJob(model=MODEL, data=DATA, calibration=1000, settings=settings)
    there = {"resume": resume, "overwrite": overwrite and not resume}
    # Overwriting is the default here, so nothing but an earlier demo goes.
    if (out / "model.json").is_file() and not _is_demo(out):
        raise UserError(f"{out}: holds a run that is no demo; choose another --out")
    # A refusal is one line.
    check_out(out, job, **there)
    typer.echo(f"coprune {' '.join(TYPED)} --seed {seed} --out {out}", err=True)
    summarise(run_prune(job, out=out, **there))


def _is_demo(run: Path) -> bool:
    """Whether a run is one of an earlier demo."""
    from coprune.files import read_json

    file = run / "job.json"
    asked = read_json(file, what="job") if file.is_file() else None
    job = asked.get("prune") if isinstance(asked, dict) else None
    return isinstance(job, dict) and (job.get("model"), job.get("data")) == (MODEL, DATA)
