"""Gathered statistics on disk: another budget or method needs no new pass over the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from coprune.errors import UserError
from coprune.files import read_json, write_json
from coprune.store.tensors import read_tensors, write_tensors

INDEX = "profile.json"
SCHEMA = 1


def save_profile(
    folder: Path, statistics: Mapping[str, Mapping[str, Tensor]], *, model: str, data: str
) -> None:
    """Write every statistic as one safetensors file, the index last.

    Args:
        folder: usually ``run/profile``.
        statistics: key → name → tensor.
        model: fingerprint of the weights they were gathered from.
        data: fingerprint of the samples.
    """
    for key, tensors in statistics.items():
        write_tensors(folder / f"{key}.safetensors", tensors)
    index = {"schema": SCHEMA, "model": model, "data": data, "statistics": sorted(statistics)}
    write_json(folder / INDEX, index)


def load_profile(folder: Path, *, model: str, data: str) -> dict[str, dict[str, Tensor]]:
    """Read the statistics of an earlier run.

    Raises:
        UserError: missing, truncated, or gathered from another model or other samples.
    """
    index = read_json(folder / INDEX, what="profile")
    if not isinstance(index, dict) or index.get("schema") != SCHEMA:
        raise UserError(f"{folder / INDEX}: not a profile of coprune, schema {SCHEMA}")
    for what, wanted in (("model", model), ("data", data)):
        if index.get(what) != wanted:
            raise UserError(
                f"{folder}: was gathered from another {what} ({index.get(what)}, here {wanted}); "
                "leave --profile out to gather anew"
            )
    return {key: read_tensors(folder / f"{key}.safetensors", what="statistic") for key in index["statistics"]}
