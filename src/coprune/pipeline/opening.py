"""The model and the data that a job names, opened so that they fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from coprune.data import DataSet, Reads, load_data
from coprune.data.names import is_text
from coprune.distributed.collectives import check_same, first_goes_ahead
from coprune.models.architectures import is_base, task_of
from coprune.models.hf import config_of, label_names, tokenizer_of
from coprune.models.names import HF
from coprune.pipeline.jobs import Job
from coprune.store import open_model
from coprune.store.model import DESCRIPTION, describe, weights_fingerprint
from coprune.user_factory import PYTHON


def open_data(
    data: str,
    *,
    calibration: int,
    seed: int,
    model: str,
    tokenizer: str | None = None,
    validation: str | None = None,
    task: str | None = None,
    max_length: int | None = None,
    reads: Reads | None = None,
) -> DataSet:
    """The named data; texts as the named model reads them, labels in the order of its classes.

    Args:
        data, calibration, seed, tokenizer, validation, task, max_length, reads: see
            :func:`coprune.data.load_data`.
        model: its name.

    Raises:
        UserError: see :func:`coprune.data.load_data`.
    """
    asked: dict[str, Any] = {"calibration": calibration, "seed": seed, "validation": validation}
    asked |= {"task": task, "max_length": max_length, "reads": reads}
    with first_goes_ahead():
        if is_text(data):
            asked |= {"tokenizer": tokenizer or tokenizer_of(model), "class_order": label_names(model)}
        return load_data(data, **asked)


def known_task(model: str) -> str | None:
    """The task that a model's name says: of a run its own, of a checkpoint with a head that of its class."""
    if not model.startswith(HF):
        folder = Path(model)
        found = describe(folder).notes.get("task") if (folder / DESCRIPTION).is_file() else None
        return found if isinstance(found, str) else None
    config = config_of(model)
    return None if is_base(config) else task_of(config)


def offered_by(data: DataSet) -> dict[str, int]:
    """What the data suggests for a model's arguments."""
    count = data.classes or len(data.names)  # of tags there are names only
    classes, shape = {"num_classes": count} if count else {}, data.input_shape
    return classes if data.is_text or not isinstance(shape, tuple) else {"in_channels": shape[0], **classes}


def open_both(job: Job, *, seed: int) -> tuple[nn.Module, DataSet]:
    """The data that a job names, and its model made to fit it.

    Args:
        job: says which, and how many samples are set aside.
        seed: which samples these are, and of the head that a checkpoint lacks.

    Raises:
        UserError: see :func:`coprune.data.load_data` and :func:`coprune.store.open_model`.
    """
    task = job.task or known_task(job.model)
    asked: dict[str, Any] = {"seed": seed, "model": job.model, "task": task, **job.set_aside()}
    asked |= {"tokenizer": job.tokenizer, "max_length": job.max_length}
    loaded = open_data(job.data, **asked)
    with first_goes_ahead():
        network = open_model(
            job.model,
            weights=Path(job.weights) if job.weights else None,
            arguments=job.arguments,
            offered=offered_by(loaded),
            task=task,
            trust=job.trust,
            seed=seed,
        )
    if job.data.startswith(PYTHON):
        reads = Reads.of(network)
        # Only the model tells several inputs from targets.
        if reads.positional not in (None, 1) or not isinstance(loaded.input_shape, tuple):
            loaded = open_data(job.data, **asked, reads=reads)
    check_same(network, weights_fingerprint, what="model")
    check_same(loaded, lambda data: data.fingerprint, what="data set")
    return network, loaded
