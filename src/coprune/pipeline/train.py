"""``coprune train``: a base model from scratch, or further training of one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from coprune.data import DataSet
from coprune.distributed.collectives import check_same
from coprune.distributed.world import world
from coprune.measure import Score, evaluate
from coprune.models.names import brings_weights
from coprune.pipeline.checks import check_trainings
from coprune.pipeline.context import stage_of
from coprune.pipeline.environment import pick_device, set_up, versions
from coprune.pipeline.jobs import TrainJob
from coprune.pipeline.opening import open_both
from coprune.pipeline.run import Begun, run
from coprune.pipeline.run_folder import RunFolder
from coprune.pipeline.which_task import task_for
from coprune.result import Result
from coprune.store import load, save_model
from coprune.store.model import weights_fingerprint
from coprune.store.state_dict import check_finite
from coprune.task import Task
from coprune.tracing.forward import READS, check_takes, shapes_of
from coprune.training import Checkpoint, fit
from coprune.training.defaults import suited


def train(
    job: TrainJob, *, out: Path, resume: bool = False, overwrite: bool = False, command: str = ""
) -> Score:
    """Train on the whole training part and write a run folder with the model.

    Args:
        job: what to train, on what, how.
        out: the run folder.
        resume: continue an interrupted training; ends with the same weights.
        overwrite: replace an earlier run.
        command: the command line, kept with the model.

    Returns:
        The metric on held-out samples.

    Raises:
        UserError: see the checks of data, model and run folder.
    """

    def begin(job: TrainJob) -> Begun[Score]:
        device = pick_device(job.device)
        set_up(threads=job.threads, seed=job.seed)
        model, data = open_both(job, seed=job.seed)
        # The first batch shows whether model and data fit, before anything is written.
        inputs, _ = next(iter(data.heldout.batches(8)))
        task = task_for(model, data, job.asked)
        check_takes(model, inputs, lambda output: task.read(output, inputs))
        recipe = suited(job.recipe, model, trained=brings_weights(job.model, job.weights))
        check_trainings(model, data, task, [recipe], device=device)
        job = job.model_copy(update={"recipe": recipe})

        def finished() -> Score:
            trained = load(out, trust=job.trust or job.model.startswith("python:"))
            return evaluate(trained, data.heldout, task=task, device=device)

        return Begun(
            job, lambda folder: _train(_Begun(model, data, task, device), job, folder, command), finished
        )

    return run("train", job, begin, out=out, resume=resume, overwrite=overwrite)


@dataclass(frozen=True)
class _Begun:
    model: nn.Module
    data: DataSet
    task: Task
    device: str


def _train(begun: _Begun, job: TrainJob, folder: RunFolder, command: str) -> Score:
    model, data, task, device = begun.model, begun.data, begun.task, begun.device
    example, _ = next(iter(data.heldout.batches(1)))
    started = time.monotonic()
    log = fit(
        model,
        data.training,
        job.recipe,
        task=task,
        seed=job.seed,
        checkpoint=Checkpoint(folder.work / "training.safetensors"),
        device=device,
        label="training",
    )
    seconds = time.monotonic() - started
    check_finite(model.state_dict(), model=model, where="the trained model")
    check_same(model, weights_fingerprint, what="result of the training")
    score = evaluate(model, data.heldout, task=task, device=device)
    model.cpu()
    notes = {
        "command": command,
        "data": job.data,
        score.metric.name: score.value,
        "recipe": job.recipe.model_dump(mode="json"),
        READS: shapes_of(example),
        "versions": versions(),
    }
    save_model(folder.path, model, notes=notes)
    Result(
        method="train",
        seed=job.seed,
        units={"total": 0, "kept": 0},
        stages=(stage_of("base", model, score, example),),
        latency=(),
        seconds={"train": round(seconds, 3)},
        versions=versions(),
        processes=world(),
    ).save(folder.path / "result.json")
    for epoch, (loss, value) in enumerate(zip(log.loss, log.accuracy, strict=True)):
        figures = {} if math.isnan(value) else {score.metric.name: value}
        folder.log("epoch", epoch=epoch, loss=loss, **figures)
    return score
