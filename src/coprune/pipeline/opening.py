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


def open_data(data: str, *, model: str) -> DataSet:
    """The named data, none of it set aside, as the named model reads it.

    Raises:
        UserError: see :func:`coprune.data.load_data`.
    """
    with first_goes_ahead():
        return load_data(data, calibration=0, **_as_read_by(model, data))


def _as_read_by(model: str, data: str, tokenizer: str | None = None) -> dict[str, Any]:
    """How a model reads texts, for :func:`coprune.data.load_data`: tokenizer, order of the classes."""
    if not is_text(data):
        return {}
    return {"tokenizer": tokenizer or tokenizer_of(model), "class_order": label_names(model)}


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


def opened(
    job: Job, data: DataSet, *, task: str | None = None, seed: int | None = None, what: str
) -> nn.Module:
    """The model that a job names, made to fit the data; the same in every process.

    Args:
        job: says which.
        data: see :func:`offered_by`.
        what: it is, in words.
        task, seed: see :func:`coprune.store.open_model`.

    Raises:
        UserError: see :func:`coprune.store.open_model`.
    """
    with first_goes_ahead():
        network = open_model(
            job.model,
            weights=Path(job.weights) if job.weights else None,
            arguments=job.arguments,
            offered=offered_by(data),
            task=task,
            trust=job.trust,
            seed=seed,
        )
    check_same(network, weights_fingerprint, what=what)
    return network


def open_both(job: Job, *, seed: int) -> tuple[nn.Module, DataSet]:
    """The data that a job names, and its model made to fit it.

    Args:
        job: says which, and how many samples are set aside.
        seed: which samples these are, and of the head that a checkpoint lacks.

    Raises:
        UserError: see :func:`coprune.data.load_data` and :func:`coprune.store.open_model`.
    """
    task = job.task or known_task(job.model)
    asked: dict[str, Any] = {"seed": seed, "task": task, "max_length": job.max_length, **job.set_aside()}
    with first_goes_ahead():
        asked |= _as_read_by(job.model, job.data, job.tokenizer)
        loaded = load_data(job.data, **asked)
    network = opened(job, loaded, task=task, seed=seed, what="model")
    if job.data.startswith(PYTHON):
        reads = Reads.of(network)
        # Only the model tells several inputs from targets.
        if reads.positional not in (None, 1) or not isinstance(loaded.input_shape, tuple):
            with first_goes_ahead():
                loaded = load_data(job.data, **asked, reads=reads)
    check_same(loaded, lambda data: data.fingerprint, what="data set")
    return network, loaded
