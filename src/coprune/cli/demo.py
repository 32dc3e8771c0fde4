"""``coprune demo``: the bundled model on the bundled data, offline, with a report at the end."""

from __future__ import annotations

import sys
from pathlib import Path

from coprune.cli.summary import summarise
from coprune.errors import UserError
from coprune.files import read_json
from coprune.options import made
from coprune.pipeline.jobs import PruneJob, Writing
from coprune.pipeline.settings import Seeded, Threading

MODEL, DATA = "coprune:resnet20@fashion-mnist", "fashion-mnist-sample"

TYPED = f"prune --model {MODEL} --data {DATA} --calibration 1000 --keep-macs 0.5".split()
"""What a user would type for the same run; a test holds the two together."""


class Demo(Writing, Seeded, Threading):
    """Where the demo goes.

    Attributes:
        overwrite: replace the run folder of an earlier demo.
    """

    out: Path = Path("demo-run")
    overwrite: bool = True


def demo(to: Demo) -> None:
    """Prune the bundled ResNet-20 to half of its MACs on bundled images, without training."""
    asked = {"model": MODEL, "data": DATA, "calibration": 1000, "keep_macs": 0.5}
    job = made(PruneJob, {**asked, "seed": to.seed, "threads": to.threads})
    job = job.model_copy(update={"settings": job.settings.model_copy(update={"latency_seconds": 3.0})})
    there = dict(Writing(out=to.out, resume=to.resume, overwrite=to.overwrite and not to.resume))
    # Overwriting is the default here, so nothing but an earlier demo goes.
    if (to.out / "model.json").is_file() and not _is_demo(to.out):
        raise UserError(f"{to.out}: holds a run that is no demo; choose another --out")
    # A refusal is one line.
    job.check(**there)
    print(f"coprune {' '.join(TYPED)} --seed {to.seed} --out {to.out}", file=sys.stderr)
    from coprune.pipeline.prune import run_prune

    summarise(run_prune(job, **there))


def _is_demo(run: Path) -> bool:
    """Whether a run is one of an earlier demo."""
    file = run / "job.json"
    asked = read_json(file, what="job") if file.is_file() else None
    job = asked.get("prune") if isinstance(asked, dict) else None
    return isinstance(job, dict) and (job.get("model"), job.get("data")) == (MODEL, DATA)
