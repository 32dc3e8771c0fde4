"""``coprune train``: a base model from scratch, or further training of one."""

from __future__ import annotations

import math
import time
from pathlib import Path

from coprune.distributed.collectives import check_same, on_first
from coprune.distributed.world import world
from coprune.measure import evaluate
from coprune.models.names import brings_weights
from coprune.pipeline.checks import check_trainings
from coprune.pipeline.context import stage_of
from coprune.pipeline.environment import pick_device, set_up, versions
from coprune.pipeline.jobs import TrainJob
from coprune.pipeline.opening import open_both
from coprune.pipeline.run import Steps, run
from coprune.pipeline.which_task import task_for
from coprune.result import Result, Stage
from coprune.store import save_model
from coprune.store.model import weights_fingerprint
from coprune.store.state_dict import check_finite
from coprune.tracing.forward import check_takes, notes_of
from coprune.training import Checkpoint, fit
from coprune.training.defaults import suited


def train(
    job: TrainJob, *, out: Path, resume: bool = False, overwrite: bool = False, command: str = ""
) -> Stage:
    """Train on the whole training part and write a run folder with the model.

    Args:
        job: what to train, on what, how.
        out: the run folder.
        resume: continue an interrupted training; ends with the same weights.
        overwrite: replace an earlier run.
        command: the command line, kept with the model.

    Returns:
        Size of the model, and the metric on held-out samples.

    Raises:
        UserError: see the checks of data, model and run folder.
    """
    run("train", job, _steps(job, command), out=out, resume=resume, overwrite=overwrite)
    return on_first(lambda: Result.load(out / "result.json")).stages[0]


def _steps(job: TrainJob, command: str) -> Steps:
    device = pick_device(job.device)
    set_up(threads=job.threads, seed=job.seed)
    model, data = open_both(job, seed=job.seed)
    # The first batch shows whether model and data fit, before anything is written.
    inputs, _ = next(iter(data.heldout.batches(8)))
    task = task_for(model, data, job.asked)
    check_takes(model, inputs, lambda output: task.read(output, inputs))
    recipe = suited(job.recipe, model, trained=brings_weights(job.model, job.weights))
    check_trainings(model, data, task, [recipe], device=device)
    folder = yield job.model_copy(update={"recipe": recipe})
    example, _ = next(iter(data.heldout.batches(1)))
    started = time.monotonic()
    unfinished = Checkpoint(folder.work / "training.safetensors")
    log = fit(model, data.training, recipe, task=task, seed=job.seed, checkpoint=unfinished, device=device)
    seconds = time.monotonic() - started
    check_finite(model.state_dict(), model=model, where="the trained model")
    check_same(model, weights_fingerprint, what="result of the training")
    score = evaluate(model, data.heldout, task=task, device=device)
    model.cpu()
    notes = {
        "command": command,
        "data": job.data,
        score.metric.name: score.value,
        "recipe": recipe.model_dump(mode="json"),
        **notes_of(example),
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
