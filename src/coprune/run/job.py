"""A pruning job by names, as the command line and job files describe it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from coprune.data import DataSet, load_data
from coprune.methods import find_method, method_settings
from coprune.run.environment import pick_device
from coprune.run.folder import claim
from coprune.run.prune import prune_model
from coprune.run.settings import PruneSettings, check_settings
from coprune.run.steps import prepare
from coprune.store import open_model


class PruneJob(BaseModel):
    """Everything ``coprune prune`` can be asked for, but where to write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    data: str
    weights: str | None = None
    arguments: Mapping[str, Any] = {}
    calibration: int = 2000
    trust: bool = False
    settings: PruneSettings = PruneSettings()


def open_both(
    model: str,
    data: str,
    *,
    weights: str | None,
    arguments: Mapping[str, Any],
    calibration: int,
    seed: int,
    trust: bool = False,
) -> tuple[nn.Module, DataSet]:
    """The named data, and the named model made to fit it.

    Raises:
        UserError: see :func:`coprune.data.load_data` and :func:`coprune.store.open_model`.
    """
    loaded = load_data(data, calibration=calibration, seed=seed)
    offered = {"in_channels": loaded.input_shape[0], "num_classes": loaded.classes}
    network = open_model(
        model, weights=Path(weights) if weights else None, arguments=arguments, offered=offered, trust=trust
    )
    return network, loaded


def run_prune(job: PruneJob, *, out: Path, resume: bool = False, overwrite: bool = False) -> Path:
    """Prune and write the run folder.

    Everything that can be wrong with names, options, data and model is found before the folder is
    touched.

    Returns:
        The run folder.
    """
    settings = job.settings
    method = find_method(settings.method)
    method_settings(method, settings.options)
    check_settings(settings, method)
    pick_device(settings.device)
    model, data = open_both(
        job.model,
        job.data,
        weights=job.weights,
        arguments=job.arguments,
        calibration=job.calibration,
        seed=settings.seed,
        trust=job.trust,
    )
    prepare(model, data, skip=settings.skip)
    folder = claim(out, job={"prune": job.model_dump(mode="json")}, resume=resume, overwrite=overwrite)
    if folder.finished:
        return out
    with folder:
        prune_model(model, data, settings, folder=folder).save(out)
        folder.close()
    return out
