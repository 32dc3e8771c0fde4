"""A pruning job by names, as the command line and job files describe it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from coprune.bounds import Calibration
from coprune.data import DataSet, load_data
from coprune.data.names import is_text
from coprune.distributed.collectives import check_same, first_goes_ahead
from coprune.errors import UserError, setting
from coprune.models.hf import label_names, tokenizer_of
from coprune.pipeline.settings import PruneSettings
from coprune.store import open_model
from coprune.store.model import weights_fingerprint


class PruneJob(BaseModel):
    """Everything ``coprune prune`` can be asked for, but where to write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    data: str
    weights: str | None = None
    tokenizer: str | None = None
    arguments: Mapping[str, Any] = {}
    calibration: Calibration = 2000
    validation: str | None = None
    trust: bool = False
    settings: PruneSettings = PruneSettings()


def open_data(
    data: str,
    *,
    calibration: int,
    seed: int,
    model: str,
    tokenizer: str | None = None,
    validation: str | None = None,
) -> DataSet:
    """The named data; texts as the named model reads them, labels in the order of its classes.

    Raises:
        UserError: see :func:`coprune.data.load_data`.
    """
    with first_goes_ahead():
        if not is_text(data):
            if tokenizer is not None:
                raise UserError(f"{setting('tokenizer', tokenizer)} is for texts, and {data} holds images")
            return load_data(data, calibration=calibration, seed=seed, validation=validation)
        return load_data(
            data,
            calibration=calibration,
            seed=seed,
            tokenizer=tokenizer or tokenizer_of(model),
            class_order=label_names(model),
            validation=validation,
        )


def offered_by(data: DataSet) -> dict[str, int]:
    """What the data suggests for a model's arguments."""
    classes = {"num_classes": data.classes}
    return classes if data.is_text else {"in_channels": data.input_shape[0], **classes}


def open_both(
    model: str,
    data: str,
    *,
    weights: str | None,
    arguments: Mapping[str, Any],
    calibration: int,
    seed: int,
    trust: bool = False,
    tokenizer: str | None = None,
    validation: str | None = None,
) -> tuple[nn.Module, DataSet]:
    """The named data, and the named model made to fit it.

    Args:
        model: see :func:`coprune.store.open_model`.
        data: see :func:`coprune.data.load_data`.
        weights: a file to load into the model.
        arguments: the model's, as typed.
        calibration: samples set aside.
        seed: which, and of the head that a checkpoint lacks.
        trust: run the factory that a run folder names.
        tokenizer: for texts, a folder or hub id; that of the model when not given.
        validation: what judges.

    Raises:
        UserError: see :func:`coprune.data.load_data` and :func:`coprune.store.open_model`.
    """
    loaded = open_data(
        data, calibration=calibration, seed=seed, model=model, tokenizer=tokenizer, validation=validation
    )
    with first_goes_ahead():
        network = open_model(
            model,
            weights=Path(weights) if weights else None,
            arguments=arguments,
            offered=offered_by(loaded),
            trust=trust,
            seed=seed,
        )
    check_same(network, weights_fingerprint, what="model")
    check_same(loaded, lambda data: data.fingerprint, what="data set")
    return network, loaded
